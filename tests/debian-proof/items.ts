// What has to work in a stock Debian, as commands for its shell.

/** One thing that has to work. */
export interface ProofItem {
  readonly name: string;
  /** Typed into root's shell; what it ends with is the result. */
  readonly command: string;
  /** What its output has to say besides. */
  readonly says?: RegExp;
  /** What its output must not say. */
  readonly silentOf?: RegExp;
  /** On a host that has nothing else to do. */
  readonly timeoutSeconds?: number;
  /** A small part of the list, for every design and for hosts with little time. */
  readonly quick?: true;
  /** Only where Debian's generic kernel runs: the cloud kernel lacks the modules. */
  readonly generic?: true;
  /** Only with the processor of `--cpu v3`. */
  readonly v3?: true;
}

const HELLO = `cat > /tmp/hello.c <<'E'
#include <stdio.h>
int main(int argc, char **argv) { printf("hello from %d bits, %s\\n", (int)(8 * sizeof(void *)), argv[1]); return 7; }
E
`;

/** Loads every module with algorithms: the kernel tests each as it registers, against vectors and its generic twin. */
const CRYPTO = `cd /lib/modules/$(uname -r)/kernel
for m in $(ls crypto/*.ko arch/x86/crypto/*.ko lib/crypto/*.ko 2>/dev/null | sed 's/.*\\///; s/\\.ko//' | grep -v tcrypt); do modprobe -q $m; done
# Each of these templates is tested with the algorithms inside it when it is asked for.
modprobe tcrypt mode=200 sec=0 num_mb=0 2>/dev/null
sleep 2
echo "failed: $(grep -c 'selftest *: [^p]' /proc/crypto)" "passed: $(grep -c 'selftest *: passed' /proc/crypto)"
dmesg | grep -iE 'alg: .*(fail|wrong|bad|error)' && exit 1
[ $(grep -c 'selftest *: passed' /proc/crypto) -ge 60 ]`;

const TROUBLE =
  'BUG:|WARNING:|Oops|general protection|soft lockup|hard LOCKUP|rcu.*stall|hung_task|blocked for more than|unstable|Call Trace|segfault|trap .* ip:|Machine check|I/O error';

export const ITEMS: readonly ProofItem[] = [
  { name: 'dpkg -l', command: 'dpkg -l | tail -n +6 | wc -l; dpkg -l bash gcc | grep ^ii; dpkg --audit', says: /^ii +bash/m },
  {
    name: 'SMBIOS: dmidecode, lscpu, systemd-detect-virt',
    command:
      'dmesg | grep "DMI:"; dmidecode > /tmp/dmi && grep -c "^Handle" /tmp/dmi && ! grep -iE "invalid|broken|out of spec|bad index|wrong" /tmp/dmi; dmidecode -s system-product-name; systemd-detect-virt; lscpu | grep -E "Hypervisor|BIOS|Virtuali"',
    says: /DMI: pvm pvm PC[\s\S]*^pvm PC\nkvm$/m,
    quick: true,
  },
  {
    name: 'dpkg: checksums of every file',
    command: 'dpkg -V 2>&1 | grep -v "usr/share/\\(doc\\|man\\|locale\\|info\\)" | tee /tmp/bad; ! grep -q . /tmp/bad',
    timeoutSeconds: 300,
  },
  {
    name: 'python3',
    command: `python3 -c 'import sys, hashlib, json, math, decimal, ssl
print(sys.version)
print(json.dumps({"pi": math.pi, "e": float(decimal.Decimal(1).exp()), "big": 3**200, "sum": sum(1/i for i in range(1, 100000))}))
print(hashlib.sha256(b"abc").hexdigest())'`,
    says: /"pi": 3\.141592653589793, "e": 2\.718281828459045, "big": 265613988875874769338781322035779626829233452653394495974574961739092490901302182994384699044001, "sum": 12\.090136129863335\}\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/,
    quick: true,
  },
  {
    name: 'python3: threads, processes, ctypes',
    command: `python3 - <<'E'
import threading, multiprocessing, ctypes, subprocess, asyncio, socket, zlib, random
n = [0]; lock = threading.Lock()
def add():
    for _ in range(2000):
        with lock: n[0] += 1
ts = [threading.Thread(target=add) for _ in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
def square(x): return x * x
with multiprocessing.get_context('fork').Pool(2) as p: s = sum(p.map(square, range(100)))
libm = ctypes.CDLL('libm.so.6'); libm.cos.restype = ctypes.c_double; libm.cos.argtypes = [ctypes.c_double]
a, b = socket.socketpair(); a.send(b'over a socket')
r = random.Random(5); data = bytes(r.randrange(7) for _ in range(100000))
assert zlib.decompress(zlib.compress(data)) == data
print(n[0], s, libm.cos(0.0), b.recv(100).decode(), subprocess.check_output(['uname', '-m']).decode().strip())
E`,
    says: /^8000 328350 1\.0 over a socket x86_64$/m,
  },
  {
    name: 'perl',
    command: `perl -MDigest::SHA=sha256_hex -MList::Util=sum -e 'my %h = map { $_ => $_ ** 2 } 1 .. 1000; print sum(values %h), " ", sha256_hex("abc"), " ", join(",", sort { $a <=> $b } grep { /9$/ } 1..50), "\\n"; print "ok\\n" if ("a" x 5000 . "b") =~ /^(a|aa)+b$/'`,
    says: /^333833500 ba7816bf\S+ 9,19,29,39,49\nok$/m,
  },
  {
    name: 'gcc, 64 bits',
    command: `${HELLO}gcc -O2 -o /tmp/hello /tmp/hello.c && /tmp/hello world; [ $? = 7 ]`,
    says: /^hello from 64 bits, world$/m,
    timeoutSeconds: 120,
    quick: true,
  },
  {
    name: 'gcc, 32 bits',
    command: `${HELLO}gcc -m32 -O2 -o /tmp/hello32 /tmp/hello.c && file -b /tmp/hello32; /tmp/hello32 world; [ $? = 7 ]`,
    says: /32-bit[\s\S]*^hello from 32 bits, world$/m,
    timeoutSeconds: 120,
  },
  {
    name: 'gcc, 32 bits: floating point, threads, signals',
    command: `cat > /tmp/m32.c <<'E'
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static __thread int mine;
static sigjmp_buf again;
static volatile long total;
static void fault(int sig) { siglongjmp(again, sig); }
static void *work(void *arg) { mine = *(int *)arg; for (int i = 0; i < 1000; i++) __sync_fetch_and_add(&total, mine); return (void *)(long)mine; }
int main(void) {
  pthread_t t[4]; int n[4];
  for (int i = 0; i < 4; i++) { n[i] = i; pthread_create(&t[i], 0, work, &n[i]); }
  for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
  signal(SIGSEGV, fault);
  int got = sigsetjmp(again, 1);
  if (got == 0) *(volatile int *)16 = 1;
  pid_t child = fork();
  if (child == 0) _exit(5);
  int status; waitpid(child, &status, 0);
  char *m = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(m, 3, 1 << 20);
  printf("%ld %d %d %.15Lf %.12f %lld\\n", total, got == SIGSEGV, WEXITSTATUS(status), sinl(1.0L), pow(2.0, 0.5), 1234567890123LL / 7 % 1000003);
}
E
gcc -m32 -O2 -o /tmp/m32 /tmp/m32.c -lm -lpthread && /tmp/m32`,
    says: /^6000 1 5 0\.841470984807897 1\.414213562373 \d+$/m,
    timeoutSeconds: 180,
  },
  {
    name: 'gcc -O3 -march=native, the same sum three ways',
    command: `cat > /tmp/v.c <<'E'
#include <stdio.h>
#include <stdint.h>
static float a[4096], b[4096];
int main(void) {
  double s = 0; uint32_t h = 1; int32_t x[1024]; int64_t t = 0;
  for (int i = 0; i < 4096; i++) { h = h * 1664525 + 1013904223; a[i] = (h >> 8) % 1000; b[i] = (h >> 20) % 7; }
  for (int r = 0; r < 100; r++) for (int i = 0; i < 4096; i++) s += a[i] * b[i];
  for (int i = 0; i < 1024; i++) x[i] = (int)a[i] << (i % 5);
  for (int r = 0; r < 100; r++) for (int i = 0; i < 1024; i++) t += x[i] > 2000 ? x[i] : -x[i];
  printf("%.1f %lld\\n", s, (long long)t);
}
E
for o in -O0 -O2 '-O3 -march=native'; do gcc $o -o /tmp/v /tmp/v.c && /tmp/v; done | uniq | tee /tmp/v.out; [ $(wc -l < /tmp/v.out) = 1 ]`,
    timeoutSeconds: 180,
  },
  {
    name: 'git: init, commit, log, fsck, gc',
    command: `rm -rf /tmp/r && git init -q -b main /tmp/r && cd /tmp/r && git config user.name pvm && git config user.email pvm@localhost
for i in 1 2 3; do cp /etc/passwd f$i; echo $i >> f$i; git add .; git commit -q -m "commit $i"; done
git branch b HEAD~1 && git checkout -q b && echo x > y && git add y && git commit -q -m "on b" && git checkout -q main && git merge -q -m merged b
git log --oneline | wc -l; git fsck --full --strict && git gc -q && git fsck --full && git clone -q . /tmp/r2 && cd /tmp/r2 && git status --short && git log -1 --format=%s; cd /; rm -rf /tmp/r /tmp/r2`,
    says: /^5\n[\s\S]*merged/m,
    timeoutSeconds: 120,
  },
  {
    name: 'sqlite3',
    command: `rm -f /tmp/t.db; sqlite3 /tmp/t.db <<'E'
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) insert into t select i, hex(i * 7919), i / 3.0 from n;
create index tb on t(b);
update t set c = c * 2 where a % 3 = 0;
delete from t where a % 10 = 0;
select count(*), sum(a), round(sum(c), 3), max(b) from t;
pragma integrity_check;
vacuum;
pragma integrity_check;
E`,
    says: /^18000\|180000000\|[\d.]+\|\w+\nok\nok$/m,
    quick: true,
    timeoutSeconds: 120,
  },
  { name: 'openssl speed -seconds 1 sha256', command: 'openssl speed -seconds 1 sha256', says: /^sha256 +[\d.]+k/m, timeoutSeconds: 60 },
  {
    name: 'openssl: ciphers there and back, RSA, ECDSA, Ed25519',
    command: `cd /tmp; head -c 300000 /dev/urandom > plain
for c in aes-128-cbc aes-256-ctr aes-192-ecb chacha20 camellia-256-cbc aria-128-ctr des-ede3-cbc; do openssl enc -$c -pbkdf2 -k secret -in plain -out sealed && openssl enc -d -$c -pbkdf2 -k secret -in sealed | cmp - plain && echo $c; done
for k in 'RSA -pkeyopt rsa_keygen_bits:2048' 'EC -pkeyopt ec_paramgen_curve:P-256' 'EC -pkeyopt ec_paramgen_curve:P-521' ED25519 X448; do
 openssl genpkey -algorithm $k -out key 2>/dev/null && openssl pkey -in key -check -noout && [ "$k" = X448 ] && continue
 openssl pkey -in key -pubout -out pub && openssl pkeyutl -sign -rawin -inkey key -in /etc/passwd -out sig && openssl pkeyutl -verify -rawin -pubin -inkey pub -in /etc/passwd -sigfile sig || echo BROKEN
done`,
    says: /(Verified Successfully[\s\S]*){4}/,
    silentOf: /BROKEN|differ|error/i,
    timeoutSeconds: 180,
  },
  {
    name: 'compressors there and back',
    command: `cd /tmp; tar -C /usr/lib -cf t.tar python3.11 2>/dev/null; s=$(sha256sum < t.tar)
for c in 'gzip -6' 'bzip2 -1' 'xz -1' 'zstd -3'; do $c -c t.tar > t.c && [ "$(\${c%% *} -dc t.c | sha256sum)" = "$s" ] && echo "$c" ok; done | tee ok; rm -f t.tar t.c; [ $(wc -l < ok) = 4 ]`,
    timeoutSeconds: 300,
  },
  {
    name: 'stress-ng --cpu 1 --vm 1 --timeout 10 --verify',
    command: 'stress-ng --cpu 1 --vm 1 --vm-bytes 64M --timeout 10 --verify --metrics-brief',
    says: /successful run completed/,
    silentOf: /fail|error/i,
    timeoutSeconds: 120,
    quick: true,
  },
  {
    name: 'stress-ng --verify: processor and caches, one after another',
    command: 'stress-ng --seq 1 --class cpu-cache --exclude bad-ioctl -t 1 --verify 2>&1 | tail -3',
    says: /successful run completed/,
    silentOf: /fail:|error:/i,
    timeoutSeconds: 300,
  },
  {
    name: 'stress-ng --verify: memory, strings, atomics, floating point, vectors',
    command:
      'stress-ng -t 2 --verify --matrix 1 --memcpy 1 --str 1 --wcs 1 --atomic 1 --qsort 1 --heapsort 1 --hash 1 --crypt 1 --radixsort 1 --zlib 1 --vecmath 1 --vecfp 1 --vecshuf 1 --vecwide 1 --fp 1 --regs 1 --funccall 1 --longjmp 1 --goto 1 --branch 1 --tree 1 --tsearch 1 --bsearch 1 --jpeg 1 --mergesort 1 --skiplist 1 --misaligned 1 --rdrand 1 --x86syscall 1 --cpu-method all',
    says: /successful run completed/,
    silentOf: /fail:|error:/i,
    timeoutSeconds: 300,
  },
  {
    name: 'stress-ng --verify: kernel',
    command:
      'stress-ng -t 2 --verify --fork 1 --vfork 1 --clone 1 --pthread 1 --mutex 1 --futex 1 --sem 1 --sem-sysv 1 --msg 1 --mq 1 --pipe 1 --poll 1 --epoll 1 --eventfd 1 --timer 1 --timerfd 1 --itimer 1 --nanosleep 1 --clock 1 --mmap 1 --mremap 1 --madvise 1 --mprotect 1 --fault 1 --sigsegv 1 --sigfpe 1 --sigq 1 --signal 1 --switch 1 --yield 1 --shm 1 --shm-sysv 1 --sock 1 --udp 1 --splice 1 --sendfile 1 --vm-rw 1 --userfaultfd 1 --ptrace 1 --seccomp 1 --context 1 --stack 1 --brk 1 --numa 1 --mlock 1 --dentry 1 --hdd 1 --hdd-bytes 4M --readahead 1 --readahead-bytes 4M --aio 1',
    says: /successful run completed/,
    silentOf: /fail:/i,
    timeoutSeconds: 300,
  },
  {
    name: 'fio with verification on a virtio disk',
    command:
      'fio --name=v --filename=/dev/vdb --offset=16M --size=16M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse >/tmp/fio.out && fio --name=w --filename=/dev/vdb --offset=32M --size=16M --rw=randrw --bsrange=512-64k --ioengine=psync --verify=sha256 --verify_fatal=1 | grep -E "err=|READ|WRITE"',
    says: /err= 0/,
    silentOf: /verify: bad/,
    timeoutSeconds: 180,
  },
  { name: 'memtester', command: 'memtester 16M 1 | tr -d "\\b"', says: /Done\./, silentOf: /FAILURE/, timeoutSeconds: 300 },
  { name: "kernel's self-tests: crypto", command: `(${CRYPTO}\n)`, timeoutSeconds: 600 },
  {
    name: "kernel's self-tests: raid6, xor",
    command: 'modprobe raid6_pq; modprobe xor; dmesg | grep -E "raid6: |xor: "',
    says: /raid6: using algorithm/,
    timeoutSeconds: 60,
  },
  {
    name: "kernel's self-tests: test_bpf",
    command: 'dmesg -C; modprobe test_bpf; dmesg | grep -vE "PASS$| PASS" | tail -40; dmesg | grep -E "Summary"',
    says: /Summary: \d+ PASSED, 0 FAILED/,
    generic: true,
    timeoutSeconds: 600,
  },
  {
    name: "kernel's self-tests: user copy, static keys, firmware",
    command: 'modprobe test_user_copy && modprobe test_static_key_base && modprobe test_static_keys && modprobe test_firmware && dmesg | tail -20',
    says: /tests passed/,
    generic: true,
    timeoutSeconds: 60,
  },
  {
    name: 'systemd: no unit failed',
    command: 'systemctl is-system-running --wait; systemctl --failed --no-legend --plain',
    says: /^running$/m,
    timeoutSeconds: 120,
  },
  { name: 'kernel log: no trouble', command: `! dmesg | grep -iE '${TROUBLE}'`, quick: true },
];
