/** One program of `programs/`, and what is expected of it. */
export interface Program {
  /** File name without `.c`, and the name in every table. */
  readonly name: string;
  readonly what: string;
  /** Slowdown against native to reach, where there is a goal. */
  readonly goal?: number;
  /** Belongs to the ten rows whose geometric mean is a goal. */
  readonly core?: boolean;
  /** Debian package with the static library that it is linked with, and that library; left out where apt cannot fetch it. */
  readonly library?: { readonly package: string; readonly name: string; readonly include?: string };
  /** Rounds by default; each is 10 to 30 ms of native time. */
  readonly rounds: number;
}

/** Goal for the geometric mean of the `core` rows. */
export const GEOMETRIC_MEAN_GOAL = 2.5;

export const PROGRAMS: readonly Program[] = [
  { name: 'mix', what: 'list + matrix + state machine + crc mix', goal: 3.0, core: true, rounds: 40 },
  { name: 'sha256', what: 'SHA-256, plain C', goal: 2.0, core: true, rounds: 60 },
  { name: 'qsort', what: 'qsort of ints, callback through pointer', goal: 1.8, core: true, rounds: 40 },
  { name: 'nbody', what: 'n-body, double, scalar SSE2', goal: 2.5, core: true, rounds: 30 },
  { name: 'matmul', what: 'matrix multiply, packed SSE2', goal: 3.0, core: true, rounds: 40 },
  { name: 'chase', what: 'pointer chase over 64 MiB', goal: 1.4, core: true, rounds: 20 },
  { name: 'libc-memory', what: 'memcpy/strlen/memset through glibc', goal: 3.0, core: true, rounds: 40 },
  { name: 'sieve', what: 'prime sieve', goal: 2.0, core: true, rounds: 40 },
  { name: 'bytecode', what: 'switch-based bytecode interpreter', goal: 3.5, core: true, rounds: 30 },
  { name: 'fib', what: 'recursive fib (call/return)', goal: 3.0, core: true, rounds: 40 },
  { name: 'tight-loop', what: 'load, xor, rotate, add, store, compare, branch', goal: 4.0, rounds: 30 },
  { name: 'hash-table', what: 'hash table with string keys', rounds: 40 },
  { name: 'lz', what: 'LZ77 compressor and decompressor', rounds: 40 },
  { name: 'regex', what: 'backtracking regular expressions', rounds: 30 },
  { name: 'bigint', what: 'multi-precision add, multiply, divide', rounds: 30 },
  { name: 'fft', what: 'FFT, double', rounds: 40 },
  { name: 'trees', what: 'binary trees, malloc and free', rounds: 40 },
  { name: 'raytracer', what: 'ray tracer, scalar float', rounds: 40 },
  { name: 'btree', what: 'B-tree insert and lookup', rounds: 40 },
  { name: 'virtual', what: 'calls through tables of functions', rounds: 40 },
  { name: 'x87', what: 'long double series', rounds: 30 },
  { name: 'image', what: '8/16-bit image filters, packed integer SSE2', rounds: 30 },
  { name: 'format', what: 'snprintf, strtod, sscanf of glibc', rounds: 40 },
  { name: 'big-code', what: '640 functions called in turn', rounds: 40 },
  { name: 'churn', what: 'generates functions, calls each 1,000 times and overwrites it', rounds: 20 },
  { name: 'lua', what: "Debian's Lua 5.4: closures, tables, strings", rounds: 30, library: { package: 'liblua5.4-dev', name: 'lua5.4', include: 'lua5.4' } },
  { name: 'zlib', what: "Debian's zlib: deflate, inflate, crc32", rounds: 20, library: { package: 'zlib1g-dev', name: 'z' } },
  { name: 'sqlite', what: "Debian's SQLite: inserts, updates, grouped queries", rounds: 30, library: { package: 'libsqlite3-dev', name: 'sqlite3' } },
];
