/**
 * Where everything lives in the one shared linear memory, and the fields of a vCPU state block.
 *
 * Flat numeric constants only: this file is compiled by TypeScript and, unchanged, by the compiler of
 * the Wasm runtime (`assembly/`). All addresses are byte offsets in linear memory ("host physical
 * addresses", HPA, 32 bits). All multi-byte fields are little-endian and naturally aligned.
 */

// ---------------------------------------------------------------- memory map

// Compiled code finds these without the state block's address, which so takes no register in loops; offsets below 128 are one byte in Wasm and in machine code.
/** What compiled code compares with for S_ICOUNT_LIMIT: `run` sets it to that of its vCPU, and whoever lowers that lowers this, too. u64. */
export const RUN_LIMIT = 0x40;
/**
 * The page of the stack: the offset in it below which a group of accesses may begin, 0 when nothing is known, as after every change of a TLB entry, of the current
 * TLB array, or of the vCPU (u64); then write tag and addend of its entry (16 bytes, as there).
 */
export const STACK_ROOM = 0x48;
export const STACK_TAG = 0x50;
export const STACK_ADDEND = 0x58;
/** The count of retired instructions from which on a loop may ask its guard (jit/loop-guard.ts): of whichever loop was entered or failed last. u64. */
export const LOOP_ASK = 0x60;
/** First vCPU state block. All other addresses below stay unused, so that a zero pointer is seldom valid. */
export const CPU_BASE = 0x0001_0000;
/** Bytes from one vCPU state block to the next. */
export const CPU_STRIDE = 0x8000;
/** Most vCPUs a machine may have. */
export const MAX_VCPUS = 8;
/** Static data of the Wasm runtime (tables for AES, x87 constants, ...). */
export const RUNTIME_DATA_BASE = 0x0005_0000;
export const RUNTIME_DATA_END = 0x0010_0000;

/** Soft TLBs: per vCPU `TLB_ARRAYS` arrays of `TLB_ENTRIES` entries of `TLB_ENTRY_SIZE` bytes. */
export const TLB_BASE = 0x0010_0000;
export const TLB_ENTRY_SIZE = 32;
export const TLB_ENTRIES = 1024;
export const TLB_ARRAY_SIZE = 0x8000;
/** 16 address-space slots, each with a supervisor (even) and a user (odd) array. */
export const TLB_ARRAYS = 32;
export const TLB_CPU_SIZE = 0x0010_0000;

/** Jump caches: per vCPU `JC_ENTRIES` entries of `JC_ENTRY_SIZE` bytes, rip -> code. */
export const JC_BASE = 0x0090_0000;
export const JC_ENTRIES = 65536;
export const JC_ENTRY_SIZE = 32;
export const JC_CPU_SIZE = 0x0020_0000;

/** Hash of decoded blocks by host-physical address: heads, then descriptors. */
export const BLOCK_HEADS = 0x0190_0000;
export const BLOCK_HEAD_COUNT = 65536;
/** Bitmap, one bit per 4 KiB frame of linear memory: some TLB may hold a write tag for the frame. 128 KiB. */
export const FRAME_WRITTEN = 0x0194_0000;
export const BLOCK_DESCS = 0x0198_0000;
export const BLOCK_DESC_SIZE = 128;
export const BLOCK_DESC_COUNT = 131072;
/** Arena of decoded instruction records, bump-allocated, emptied as a whole. */
export const RECORD_ARENA = 0x02a0_0000;
export const RECORD_ARENA_END = 0x04af_f000;

/** Per opcode of 64-bit code (number in its map, map << 8 added: none, 0F, 0F 38, 0F 3A), u8: OPCODE_*, 0 while nothing is known. */
export const DECODE_OPCODES = 0x04af_f000;
export const OPCODE_PLAIN = 1;
export const OPCODE_MODRM = 2;
/** What the runtime's decoder came to, u32s: bytes and instructions of the block, address of the next record, DECODED_*, immediate of the last one, key that it has no template for or NO_KEY. */
export const DECODED_BYTES = 0x04af_f400;
export const DECODED_INSNS = 0x04af_f404;
export const DECODED_RECORD = 0x04af_f408;
export const DECODED_STATE = 0x04af_f40c;
export const DECODED_IMM = 0x04af_f410;
export const DECODED_KEY = 0x04af_f414;
/** Bits of DECODED_STATE: the block ends with the last instruction; that is a relative branch. */
export const DECODED_END = 1;
export const DECODED_RELATIVE = 2;
export const NO_KEY = 0xffff_ffff;
/**
 * Templates of records, u32: what the decoder found out about an instruction of this key, so that the runtime decodes the next one. Key: opcode as above << 7,
 * ModRM.reg << 3 and ModRM.mod = 3 << 6 if there is ModRM, REX.W << 2, mandatory prefix (0 none, 1 66, 2 F3, 3 F2). 0: none yet.
 */
export const DECODE_TEMPLATES = 0x04b0_0000;
/** Instructions of this key need the whole decoder. Else bits: the block ends, the immediate is a relative branch's, and numbers TEMPLATE_*. */
export const TEMPLATE_NONE = 1;
export const TEMPLATE_END = 2;
export const TEMPLATE_RELATIVE = 4;
/** Shifts: register file of ModRM.reg, of ModRM.rm when it is a register or of the opcode's register, kind of immediate, 3 bits each; handler. */
export const TEMPLATE_REG = 4;
export const TEMPLATE_RM = 7;
export const TEMPLATE_IMM = 10;
export const TEMPLATE_HANDLER = 16;
/** Register files. 0: the operand is none. */
export const FILE_BYTE = 1;
export const FILE_GPR = 2;
export const FILE_XMM = 3;
export const FILE_MMX = 4;
/** Immediates. 0: none; unsigned, signed, by bits. */
export const IMM_U8 = 1;
export const IMM_S8 = 2;
export const IMM_U16 = 3;
export const IMM_S16 = 4;
export const IMM_S32 = 5;
export const IMM_64 = 6;

/** Targets that indirect jumps and calls were seen to take in the interpreter: entries by hash of the site's RIP. 512 KiB. */
export const PROFILE_BASE = 0x04b8_0000;
export const PROFILE_ENTRIES = 1024;
export const PROFILE_ENTRY_SIZE = 512;
/** Site's RIP u64, count u32, then up to PROFILE_TARGETS RIPs u64, those that are taken often in front. */
export const PROFILE_SITE = 0;
export const PROFILE_COUNT = 8;
export const PROFILE_LIST = 16;
export const PROFILE_TARGETS = 62;

/** Per 4 KiB frame of linear memory: u64 bitmap, one bit per 64 bytes that hold decoded code. */
export const CODE_BITS = 0x04c0_0000;
export const CODE_BITS_END = 0x0540_0000;

/** Pool of 4 KiB frames for shadow page tables (second-level tables, guest-invisible pages). */
export const FRAME_POOL_BASE = 0x0540_0000;

// ---------------------------------------------------------------- vCPU state block

/** 16 general registers, 8 bytes each, in encoding order RAX RCX RDX RBX RSP RBP RSI RDI R8..R15. */
export const S_GPR = 0x000;
/** RIP of the next instruction; only exact outside generated code. */
export const S_RIP = 0x080;
/** Virtual address of the first instruction of the block the interpreter is in. */
export const S_BLOCK_RIP = 0x088;
/** Lazy status flags: kind (`FLAGS_*`), result sign-extended to 64 bits, second operand. */
export const S_CC_KIND = 0x090;
/** RFLAGS without the six status flags (bit 1 set): IF, DF, TF, IOPL, NT, RF, VM, AC, ID, VIF, VIP. */
export const S_RFLAGS = 0x094;
export const S_CC_RES = 0x098;
export const S_CC_SRC = 0x0a0;
/** Always zero: the base or index of an address that has none. */
export const S_ZERO = 0x0a8;
/** Effective address computed by an address pseudo-instruction. */
export const S_EA = 0x0b0;
/** Retired instructions since creation, u64. */
export const S_ICOUNT = 0x0b8;
/** When `S_ICOUNT` reaches this at a check point, `run` returns `EXIT_LIMIT`. u64. */
export const S_ICOUNT_LIMIT = 0x0c0;
/** Pointer to the current TLB array. */
export const S_TLB = 0x0c8;
/** Unique number of the current translation context; changes whenever cached virtual code addresses become stale. */
export const S_CTX = 0x0cc;
/** Pointer to this vCPU's jump cache. */
export const S_JC = 0x0d0;
/** Current privilege level 0..3, u32. */
export const S_CPL = 0x0d4;
/** Non-zero: a pending exception raised by the current instruction: vector + 1 (or `EXC_RESTART`). */
export const S_EXC = 0x0d8;
export const S_EXC_ERROR = 0x0dc;
/** Address of the last page fault (goes to CR2 or PVCS). u64. */
export const S_EXC_ADDR = 0x0e0;
/** Code size of the current code segment in bits: 16, 32 or 64. u32. */
export const S_CODE_SIZE = 0x0e8;
/** Non-zero while the interpreter runs a single uncached instruction: stores to code pages go through. */
export const S_STEP = 0x0ec;
/** Interpreter entries after which a block is reported to `host.hot`; 0: never. u32. */
export const S_HOT_THRESHOLD = 0x0f0;
/** What the vCPU is running, for the sampler: `TIER_*`. u32. */
export const S_TIER = 0x0f4;
/** State of the deterministic RDRAND generator, never 0 once seeded. u64. */
export const S_RANDOM = 0x0f8;

/** Segments ES CS SS DS FS GS (then LDTR, TR): 32 bytes each: base u64, limit u32, attr u32, selector u32. */
export const S_SEG = 0x100;
export const SEG_STRIDE = 32;
export const SEG_BASE = 0;
export const SEG_LIMIT = 8;
export const SEG_ATTR = 12;
export const SEG_SELECTOR = 16;
export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const LDTR = 6;
export const TR = 7;
/** GDTR and IDTR: base u64, limit u32. */
export const S_GDTR = 0x200;
export const S_IDTR = 0x210;

/** Control registers, u64 each. */
export const S_CR0 = 0x220;
/** CR0.EM | CR0.TS: SSE instructions raise #UD, #NM. */
export const CR0_EM_TS = 0xc;
export const CR0_TS = 8;
export const S_CR2 = 0x228;
export const S_CR3 = 0x230;
export const S_CR4 = 0x238;
export const CR4_OSXSAVE = 1 << 18;
export const S_CR8 = 0x240;
export const S_EFER = 0x248;
export const S_XCR0 = 0x250;
/** SSE and AVX state, both of which AVX instructions need. */
export const XCR0_AVX = 6;
/** Debug registers DR0..DR7, u64 each. */
export const S_DR = 0x258;
/** MSRs the CPU itself uses. u64 each. */
export const S_STAR = 0x298;
export const S_LSTAR = 0x2a0;
export const S_CSTAR = 0x2a8;
export const S_SFMASK = 0x2b0;
export const S_KERNEL_GS_BASE = 0x2b8;
export const S_TSC_AUX = 0x2c0;
export const S_SYSENTER_CS = 0x2c8;
export const S_SYSENTER_ESP = 0x2d0;
export const S_SYSENTER_EIP = 0x2d8;
export const S_PAT = 0x2e0;
export const S_APIC_BASE = 0x2e8;
/** PKRU u32. */
export const S_PKRU = 0x2f0;
/** MXCSR u32, and MXCSR_TRACKED. */
export const S_MXCSR = 0x2f4;
/** What the guest sees of S_MXCSR. */
export const MXCSR_VISIBLE = 0xffff;
/** Power-on value. S_MXCSR is this, and exception flags are not noted, until the guest loads MXCSR: see assembly/mxcsr.ts. */
export const MXCSR_DEFAULT = 0x1f80;
/** Exception flags are noted. Set for every other value of MXCSR, and for the default one where the guest has loaded it. */
export const MXCSR_TRACKED = 0x1_0000;
/** The precision flag, which nearly every computation sets. */
export const MXCSR_PE = 0x20;
/** Rounding and exception masks: at their defaults compiled code that notes exceptions may run. */
export const MXCSR_ROUNDING_MASKS = 0x7f80;
/** TSC = clock source + this. u64. */
export const S_TSC_OFFSET = 0x2f8;

/** Breakpoints that are armed: WATCH_* shifted by the number of the debug register. u32. */
export const S_WATCH = 0x380;
/** Non-zero while data accesses must be aligned (CR0.AM, RFLAGS.AC, CPL 3): the TLB then has no tags for data. u32, after S_WATCH. */
export const S_ALIGN = 0x384;
/** DR6 bits of a debug trap that waits for the end of the instruction. u32. */
export const S_DEBUG = 0x388;
/** Value of S_ICOUNT while debug traps are held off by a load of SS. u64. */
export const S_DEBUG_SHADOW = 0x390;
/** Value of S_ICOUNT when a repeated string instruction last stopped between two iterations. u64. */
export const S_REPEATING = 0x398;
/** S_ICOUNT of the first PAUSE of a loop, or of the last EXIT_SPIN in it. u64. */
export const S_SPIN_FIRST = 0x3a0;
/** When `S_ICOUNT` reaches this where the jump cache misses, `run` returns `EXIT_LIMIT` too: straight code of any length has no check point. u64. */
export const S_FAR_LIMIT = 0x3a8;
export const WATCH_DATA = 15;
export const WATCH_CODE = 0xf0;
export const WATCH_IO = 0xf00;

/** XMM/YMM registers: 16 x 16 bytes (low halves), then 16 x 16 bytes (high halves). */
export const S_XMM = 0x400;
export const S_YMM_HIGH = 0x500;
/** x87: 8 physical registers of 16 bytes: mantissa u64, sign+exponent u16. MMX alias the mantissas. */
export const S_X87 = 0x600;
export const S_X87_CW = 0x680;
/** Status word without TOP; TOP is `S_X87_TOP`. */
export const S_X87_SW = 0x684;
export const S_X87_TOP = 0x688;
/** Abridged tag word: bit set = register not empty, by physical register. */
export const S_X87_TAGS = 0x68c;
export const S_X87_FOP = 0x690;
export const S_X87_FIP = 0x698;
export const S_X87_FDP = 0x6a0;

/** Scratch for 128-bit slow-path accesses and helper results. 64 bytes, 16-aligned. */
export const S_SCRATCH = 0x6c0;

/** What the crossing to TypeScript is about: filled by Wasm before an import is called or `run` returns. */
export const S_EXIT_VA = 0x700;
export const S_EXIT_GPA = 0x708;
/** Access bits: `ACCESS_*`. */
export const S_EXIT_ACCESS = 0x710;
/** Access size in bytes. */
export const S_EXIT_SIZE = 0x714;
/** Value stored, or value loaded by the handler. 16 bytes. */
export const S_EXIT_VALUE = 0x718;
/** Length of the instruction that caused the exit, when the reason says so. */
export const S_EXIT_INSN_LEN = 0x728;
/** Host-physical address of a block that became hot or needs decoding. */
export const S_EXIT_BLOCK = 0x72c;
/** More about a failed second-level walk: `EPT_QUAL_*`. u32. */
export const S_EXIT_QUAL = 0x730;
/** Which half of a 256-bit instruction a floating-point helper is called for: 1 low (exceptions wait), 2 high, 0 the instruction has one. u32. */
export const S_SOFT_HALF = 0x734;
/** Non-zero: Wasm's relaxed multiply-add rounds twice on this host. u32. */
export const S_UNFUSED = 0x738;
/** Scratch of the runtime for accesses that cross a page. 32 bytes. */
export const S_SPLIT = 0x740;

// Virtualisation control block: what the machine does by itself and what leaves the guest.
/** `PAGING_*`. */
export const V_PAGING = 0x800;
/** Intercepts: `INTERCEPT_*` bits. */
export const V_INTERCEPTS = 0x804;
/** HPA of the top-level table the walker uses in `PAGING_SHADOW` mode (current shadow root). */
export const V_ROOT = 0x808;
/** HPA of guest physical address 0, and bytes of RAM below 4 GiB; then RAM above 4 GiB. */
export const V_RAM_BASE = 0x80c;
export const V_RAM_LOW = 0x810;
export const V_RAM_HIGH = 0x814;
/** 4 or 5 levels in the table walked. */
export const V_LEVELS = 0x818;
/** `SYSCALL_*`: what SYSCALL means. */
export const V_SYSCALL_MODE = 0x81c;
/** Exception vectors that leave the guest, one bit each (0..31). */
export const V_EXC_BITMAP = 0x820;
/** `CLOCK_*`: source of the TSC. */
export const V_CLOCK = 0x824;
/** HPA of a 4 KiB block with MSR intercept bits, 0: all intercepted. */
export const V_MSR_BITMAP = 0x828;
/** HPA of an 8 KiB block with I/O intercept bits, 0: all intercepted. */
export const V_IO_BITMAP = 0x82c;
/** Non-zero: MOV CR3 etc. in the guest's tables may be cached per slot. Slot of the current TLB array. */
export const V_SLOT = 0x830;
/** Second-level root HPA for two-dimensional walks. */
export const V_EPT_ROOT = 0x834;
/** Virtual TSC with CLOCK_ICOUNT: (S_ICOUNT * V_TSC_MUL >> V_TSC_SHIFT) + S_TSC_OFFSET. u32 each. */
export const V_TSC_MUL = 0x838;
export const V_TSC_SHIFT = 0x83c;
/** Non-zero: the CPU delivers events and does privileged and descriptor instructions itself, as hardware does, but for what
 *  V_EXC_BITMAP and V_INTERCEPTS name. Zero: all of them leave the guest. */
export const V_NATIVE = 0x840;
/** Non-zero, with V_NATIVE and PAGING_SHADOW: the guest's kernel is deprivileged. S_CPL is its virtual privilege level, and every access is made
 *  at privilege 3 on the shadow table of that level: P_KERNEL_ROOT, or P_USER_ROOT at 3. */
export const V_DEPRIVILEGED = 0x844;
/** Bits of CR0 and CR4 that the hypervisor owns (SDM vol. 3, 25.6.6): an instruction that would change one leaves with EXIT_PRIVILEGED,
 *  the new value (CLTS excepted) in S_EXIT_VALUE. u32 each. */
export const V_CR0_MASK = 0x848;
export const V_CR4_MASK = 0x84c;
/** Read shadows of CR0 and CR4 (SDM vol. 3, 25.6.6), kept as a difference: bits, all of them owned, that read as the opposite of what they are. u32 each. */
export const V_CR0_FLIP = 0x850;
export const V_CR4_FLIP = 0x854;
/** TPR shadow (SDM vol. 3, 30.1.1): with INTERCEPT_CR8, a priority class in S_CR8 below this leaves with EXIT_CR8. u32. */
export const V_TPR_THRESHOLD = 0x858;
/** HPA of the APIC-access page (SDM vol. 3, 30.4), 0: none. Accesses through the second level end there, those to its TPR excepted. u32. */
export const V_APIC_PAGE = 0x85c;
/** Pause-loop exiting at CPL 0 (SDM vol. 3, 26.1.3), in instructions: longest gap between two PAUSEs of one loop, longest loop; 0: off. u32 each. */
export const V_PLE_GAP = 0x860;
export const V_PLE_WINDOW = 0x864;
/** S_ICOUNT of the last PAUSE and of the first of its loop. u64 each. */
export const S_PLE_LAST = 0x868;
export const S_PLE_FIRST = 0x870;
/** vCPUs take turns on one thread: instructions of a loop with PAUSE, at any privilege level, after which `run` returns EXIT_SPIN; 0: never. u32. */
export const V_SPIN_WINDOW = 0x87c;

// PVM part of the control block, used by the switcher only.
/** Non-zero: no translation outlives a change of mode (PCIDs are not used). u32. */
export const P_FLUSH_ON_SWITCH = 0x878;
/** 1: in supervisor mode (smod), 0: in user mode (umod). */
export const P_SMOD = 0x880;
/** 1: direct switch allowed (cleared while an event is pending, single-step is on, ...). */
export const P_DIRECT = 0x884;
/** HPA of the PVCS page, 0: none. */
export const P_PVCS = 0x888;
/** By how many bytes user_gsbase, eflags, pkru and rip lie further on in the PVCS than revision v2 has them, and rcx and r11 twice as many: 0 for v2, 8 for
 *  rfc-v1, which also exchanges RSP and CR3 on every change of mode. */
export const P_PVCS_SHIFT = 0x88c;
export const P_RETU_RIP = 0x890;
export const P_EVENT_ENTRY = 0x898;
/** Shadow roots, TLB arrays and contexts of the current guest table, user then kernel; root 0: not valid. */
export const P_USER_ROOT = 0x8a0;
export const P_USER_TLB = 0x8a4;
export const P_USER_CTX = 0x8a8;
export const P_KERNEL_ROOT = 0x8ac;
export const P_KERNEL_TLB = 0x8b0;
export const P_KERNEL_CTX = 0x8b4;
/** Count of direct switches user->kernel and kernel->user, u64 each. */
export const P_DIRECT_SYSCALLS = 0x8b8;
export const P_DIRECT_ERETUS = 0x8c0;
/** RFLAGS bits a guest may set by ERETU. */
export const P_RFLAGS_ALLOWED = 0x8c8;
/** rfc-v1: SUPERVISOR_RSP, RETS_RIP, SWITCH_CR3. */
export const P_SUPERVISOR_RSP = 0x8d0;
export const P_RETS_RIP = 0x8d8;
export const P_SWITCH_CR3 = 0x8e0;
/** Table index of the switcher's function that takes a page fault of umod to smod, 0: such faults leave the guest. u32. */
export const P_PAGE_FAULT = 0x8e8;
/** The switch `prefault`: 0 off, PREFAULT_ON, and with it the access + 1 of the fault at P_PREFAULT_VA whose page is filled in at the next ERETU. u32; u64. */
export const P_PREFAULT = 0x8ec;
export const P_PREFAULT_VA = 0x8f0;
export const PREFAULT_ON = 0x80;
/** Page faults taken to smod without an exit, u64. */
export const P_DIRECT_FAULTS = 0x8f8;

// Counters kept by Wasm, u64 each; read by the report.
export const C_TLB_MISSES = 0x900;
export const C_TLB_FLUSHES = 0x908;
export const C_WALKS = 0x910;
export const C_INTERP_BLOCKS = 0x918;
/** Instructions retired in compiled code. */
export const C_JIT_INSNS = 0x920;
export const C_JIT_ENTRIES = 0x928;
export const C_JC_MISSES = 0x930;
/** Exceptions and interrupts delivered by the CPU itself. */
export const C_EVENTS = 0x938;
/** Why compiled code came back to the dispatcher: u64 each, by LEFT_*. */
export const C_JIT_LEFT = 0x940;
/** Control went to code without a compiled region, or that the jump cache does not know yet; */
export const LEFT_NO_REGION = 0;
/** the region does not hold in this state of the CPU (control of SSE, segments): the interpreter does one block; */
export const LEFT_DECLINED = 1;
/** an instruction raised an exception, or must be run by itself; */
export const LEFT_EXCEPTION = 2;
/** the instruction limit: the end of a slice, a timer, or a result of the compiler; */
export const LEFT_LIMIT = 3;
/** an instruction after which events are looked at; */
export const LEFT_CHECK = 4;
/** an instruction that leaves the guest. */
export const LEFT_EXIT = 5;
export const LEFT_CAUSES = 6;

/** Context numbers of the TLB arrays, u32 x TLB_ARRAYS; then per-array Bloom filter of code pages (512 bytes each). */
export const T_CTX = 0xa00;
export const T_NEXT_CTX = 0xa80;
/** Bit per TLB array: something was filled since its last flush. u32. */
export const T_USED = 0xa84;
/** Per array u64: bit (va >> 22) & 31, and 32 more for the upper half of the address space, set when a fragment of a large page may be cached; a 1 GiB page sets all of its half. */
export const T_LARGE = 0xa88;
/** External interrupt that waits for delivery: vector + 1, or INTR_WINDOW: return EXIT_INTR_WINDOW as soon as one could be delivered. u32. */
export const S_INTR = 0xb90;
export const INTR_WINDOW = 0x200;
/** Non-zero: an NMI waits for delivery. u32. */
export const S_NMI = 0xb94;
/** Value of S_ICOUNT while events are held off by STI or a load of SS. u64. */
export const S_SHADOW = 0xb98;
/** Non-zero from the delivery of an NMI to the next IRET. u32. */
export const S_NMI_BLOCKED = 0xba0;
/** Bit per TLB array: code was fetched from pages that are not global. u32. */
export const T_LOCAL_CODE = 0xba4;
/** Bit per segment register: what compiled 32-bit code takes for granted of it. ES, CS, SS, DS are flat and may be written (CS: run), SS has
 *  32-bit offsets; FS and GS have no limit and may be written, their bases are looked up. u32. */
export const S_FLAT = 0xba8;
/** ES, CS, SS and DS. */
export const FLAT_ALWAYS = 15;
/** Per TLB array u64: base and code size of the code segment whose RIPs the jump cache holds under the array's context. */
export const T_CODE_SEGMENT = 0xc00;
/** Per slot of TLB arrays: PCID + 1, 0: none (u32 x 16); when it was last used (u32 x 16); clock of that (u32). */
export const T_PCID = 0xd00;
export const T_PCID_USED = 0xd40;
export const T_PCID_CLOCK = 0xd80;
export const TLB_SLOTS = 16;
/** MSRs that only hold what is written to them: MTRRs and a few more, u64 each (`assembly/msr.ts` has the order). */
export const S_MSR = 0xd88;
export const T_CODE_BLOOM = 0x1000;
export const T_CODE_BLOOM_SIZE = 512;
/** CPUID answers: count u32, then at CPUID_ENTRIES records of CPUID_ENTRY_SIZE bytes: leaf, subleaf (or
 *  CPUID_ANY_SUBLEAF), EAX, EBX, ECX, EDX, each u32. Leaves not found answer zeros. */
export const CPUID_COUNT = 0x5000;
export const CPUID_ENTRIES = 0x5010;
export const CPUID_ENTRY_SIZE = 24;
export const CPUID_MAX_ENTRIES = 160;
export const CPUID_ANY_SUBLEAF = -1;

/** Where FXSAVE/XSAVE images are put together. 1 KiB. */
export const S_XSAVE_AREA = 0x6000;
/** Paging-structure cache: generation u32; then WALK_CACHE_ENTRIES entries of 32 bytes: tag u64 (va >> 21, generation above),
 *  root u64, HPA of the last-level table u32, W and U at their places and NX in bit 31 u32. Every TLB flush or INVLPG empties it. */
export const S_WALK_GENERATION = 0xb88;
export const S_WALK_CACHE = 0x6400;
export const WALK_CACHE_ENTRIES = 64;
/** In the rights of an entry of the paging-structure cache: the last-level table can be written through the second level, and is dirty there. */
export const WALK_TABLE_WRITABLE = 8;
/** In the block of vCPU 0, for all: host-physical addresses of MXCSR in the images that were saved with MXCSR_DEFAULT | MXCSR_TRACKED,
 *  u32 x TRACKED_IMAGE_COUNT by hash of the address, 0: none. */
export const S_TRACKED_IMAGES = 0x7000;
export const TRACKED_IMAGE_COUNT = 1024;
/** Cache of second-level walks: EPT_CACHE_ENTRIES entries of 16 bytes: tag u64 (gpa >> 30, root above), HPA of the table whose entries map
 *  2 MiB u32, rights combined so far u32. Emptied when the whole TLB is. */
export const S_EPT_CACHE = 0x6c00;
export const EPT_CACHE_ENTRIES = 8;
/** SMAP: TLB entries of user pages that were filled for a supervisor with RFLAGS.AC set, u32 x SMAP_ENTRIES, used in turn; how many were so far; and
 *  whether their tags are open now. u32 each. */
export const S_SMAP_LIST = 0x6c80;
export const SMAP_ENTRIES = 16;
export const S_SMAP_COUNT = 0x6cc0;
export const S_SMAP_OPEN = 0x6cc4;
/** While S_STEP is set: which accesses of the instruction are to the stack segment, so that they raise #SS where others raise #GP: STEP_STACK_*. u32. */
export const S_STEP_STACK = 0x6cc8;
/** The context number that supervisor's TLB arrays share whose code was all fetched from global pages, and a bit for each array that does. u32 each. */
export const T_GLOBAL_CTX = 0x6ccc;
export const T_SHARING = 0x6cd0;
/** Bloom filter of the code pages of all arrays that share it. T_CODE_BLOOM_SIZE bytes. */
export const T_GLOBAL_BLOOM = 0x6d00;
/** Virtual address of the first instruction of the region that is running. u64. */
export const S_REGION_RIP = 0x6cd8;
/** TLB_COUNTED while TLB hits are counted, else 0: bits that tags for data get when they are filled in. u64. */
export const S_TLB_COUNTED = 0x6ce0;
/** Data accesses that the TLB allowed, as long as that is counted; u64. */
export const C_TLB_HITS = 0x6ce8;

// ---------------------------------------------------------------- TLB entry
/** Tag = virtual page address (bits 12..63), or one that no address which selects the entry is near (`noDataTag` in assembly/tlb.ts). An access hits when
 *  `(va + size - 1) & ~0xfff == tag` for its kind; compiled code, which saves an instruction by it, asks for `(va ^ tag) <= 4096 - size`. u64 each. */
export const TLB_READ = 0;
/** Other than in the page's address in the tags for data: generated code finds no match, so that each access comes to the runtime, which counts it. One of
 *  the bits that select the entry. */
export const TLB_COUNTED = 1 << 13;
export const TLB_EXEC = 8;
export const TLB_WRITE = 16;
/** HPA = low 32 bits of va + addend. u32. */
export const TLB_ADDEND = 24;
/** `TLB_FLAG_*`. u32. */
export const TLB_FLAGS = 28;
/** Filled from a global page. */
export const TLB_FLAG_GLOBAL = 1;
/** Writable and dirty, but the write tag is withheld because the frame holds decoded code. */
export const TLB_FLAG_CODE = 2;
/** A fragment of a 2 MiB (or 4 MiB), or of a 1 GiB page. */
export const TLB_FLAG_LARGE = 4;
export const TLB_FLAG_HUGE = 8;
/** A user page in a supervisor's array under SMAP: TLB_CLOSED is another one in its data tags, so that they match nothing, while RFLAGS.AC is clear. */
export const TLB_FLAG_SMAP = 16;
export const TLB_CLOSED = 1 << 12;

// ---------------------------------------------------------------- jump cache entry
export const JC_RIP = 0;
export const JC_CTX = 8;
/** Table index of compiled code, 0: none. */
export const JC_FN = 12;
/** Address of the first decoded record. */
export const JC_REC = 16;
/** Address of the block descriptor. */
export const JC_DESC = 20;
/** Value of BD_FN whose page dependencies did not hold for this address, 0: none. */
export const JC_REFUSED = 24;

// ---------------------------------------------------------------- block descriptor
export const BD_HPA = 0;
/** Code size of the decoded bytes (16, 32, 64). */
export const BD_MODE = 4;
/** Next descriptor in the hash chain, 0: end. */
export const BD_NEXT = 8;
export const BD_REC = 12;
/** Table index of the compiled region that starts here, 0: none. */
export const BD_FN = 16;
/** Entries by the interpreter since decoded; at the threshold the JIT is asked. */
export const BD_COUNT = 20;
/** Other pages the code depends on: BD_PAGES u16 = how many of the list the interpreter block needs (0 or 1),
 *  BD_REGION_PAGES u16 = how many, from the start of the list, the compiled region needs (0..BD_MAX_PAGES). The list: pairs
 *  (page delta i32 in 4 KiB units from the page of the first byte, HPA of the page u32). */
export const BD_PAGES = 24;
export const BD_REGION_PAGES = 26;
export const BD_PAGE_LIST = 28;
export const BD_MAX_PAGES = 11;
/** When it was decoded: S_ICOUNT of its vCPU then, in units of 16 instructions. u32, wraps around. */
export const BD_BORN = 116;
export const BD_BORN_SHIFT = 4;
/** Entries for each instruction that its vCPU retired, as it was when a region took it in, for compiled code does not count; 0: none has. f32. */
export const BD_RATE = 120;
/** Non-zero: code that notes floating-point exceptions was asked for in place of the region that starts here. u16. */
export const BD_TRACKED = 124;
/** How far direct branches of the block, and of a region that starts here, reach from its first byte, in units of 64 KiB, rounded up. u16. */
export const BD_REACH = 126;
export const BD_REACH_SHIFT = 16;

// ---------------------------------------------------------------- decoded record (32 bytes)
export const REC_SIZE = 32;
/** Table index of the handler. u32. */
export const R_HANDLER = 0;
/** State-block offset of the ModRM.reg operand. u16 */
export const R_REG = 4;
/** State-block offset of the ModRM.rm (or opcode) register operand, or of the vector of indexes. u16 */
export const R_RM = 6;
/** State-block offsets of base and index (S_ZERO when none). u16 */
export const R_BASE = 8;
export const R_INDEX = 10;
/** State-block offset of the segment base (S_ZERO when flat). u16 */
export const R_SEG = 12;
/** log2 of the index scale. u8; VEX.vvvv register number u8. */
export const R_SCALE = 14;
export const R_VVVV = 15;
/** Displacement, sign-extended by the handler. For RIP-relative operands relative to S_BLOCK_RIP. i32 */
export const R_DISP = 16;
/** Bytes from S_BLOCK_RIP to the start of the instruction u16; instruction length u8; index in block u8. */
export const R_OFF = 20;
export const R_LEN = 22;
export const R_IDX = 23;
/** Immediate, 64 bits, already sign-extended; for direct branches the displacement from S_BLOCK_RIP to the target. */
export const R_IMM = 24;
/** Longest interpreter block. */
export const MAX_BLOCK_INSNS = 64;

// ---------------------------------------------------------------- enumerations
/** Lazy flag kinds. CC_RES is always the result sign-extended from the operand size. */
/** CC_SRC holds CF|AF|OF at RFLAGS positions, bit 7: SF is inverted, bits 16-23: xored into the parity byte. */
export const FLAGS_EXPLICIT = 0;
/** ADD: res = a + src. 8, 16, 32, 64 bits = +0..+3. */
export const FLAGS_ADD = 1;
/** SUB/CMP/NEG: res = a - src. */
export const FLAGS_SUB = 5;
/** AND/OR/XOR/TEST: CF = OF = AF = 0. */
export const FLAGS_LOGIC = 9;
/** INC/DEC: CF = CC_SRC & 1. */
export const FLAGS_INC = 10;
export const FLAGS_DEC = 14;

/** Valid offsets of a segment, kept from base, limit and attributes for the checks of 16- and 32-bit code: u32 each. */
export const SEG_FIRST = 20;
export const SEG_LAST = 24;

export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_EXEC = 2;
/** Reading as the first half of a read-modify-write: needs write permission. */
export const ACCESS_RMW = 3;
/** Descriptor-table and similar accesses made at privilege 0 whatever CPL is. */
export const ACCESS_IMPLICIT_SUPERVISOR = 4;

/** In S_EXIT_ACCESS of a failed walk: only a test whether the access would fault; devices must not see it. */
export const ACCESS_PROBE = 16;

/** Physical address bits; those above, up to 51, are reserved in page-table entries. */
export const MAXPHYADDR = 46;

/** S_EXIT_QUAL: the guest-physical access was to a guest paging structure; the second-level entry is misconfigured;
 *  it was present. */
export const EPT_QUAL_TABLE = 1;
export const EPT_QUAL_MISCONFIG = 2;
export const EPT_QUAL_PRESENT = 4;
/** The translation is V_APIC_PAGE. */
export const EPT_QUAL_APIC = 8;

/** S_EXIT_QUAL of EXIT_IO with V_NATIVE: a string instruction, repeated, its address size in bytes from IO_ADDR_SHIFT on. */
export const IO_STRING = 1;
export const IO_REP = 2;
export const IO_ADDR_SHIFT = 4;

/** How `sys_int` was called. */
export const INT_N = 0;
export const INT_ICEBP = 1;
export const INT_BREAKPOINT = 2;

export const STEP_STACK_NONE = 0;
export const STEP_STACK_ALL = 1;
/** Those at the stack pointer: the others are of a memory operand in another segment. */
export const STEP_STACK_POINTER = 2;

export const TIER_NONE = 0;
export const TIER_INTERPRETER = 1;
export const TIER_COMPILED = 2;

export const PAGING_OFF = 0;
export const PAGING_GUEST = 1;
export const PAGING_EPT = 2;
export const PAGING_SHADOW = 3;

export const SYSCALL_NATIVE = 0;
export const SYSCALL_PVM = 1;
export const SYSCALL_EXIT = 2;

export const CLOCK_ICOUNT = 0;
export const CLOCK_HOST = 1;

export const INTERCEPT_CPUID = 1 << 0;
export const INTERCEPT_HLT = 1 << 1;
export const INTERCEPT_RDTSC = 1 << 2;
export const INTERCEPT_INVLPG = 1 << 3;
/** Every move to or from a control register, CLTS and LMSW. */
export const INTERCEPT_CR = 1 << 4;
export const INTERCEPT_MSR = 1 << 5;
export const INTERCEPT_IO = 1 << 6;
/** With V_NATIVE: EXIT_CR8 after MOV to CR8 brought it below V_TPR_THRESHOLD. */
export const INTERCEPT_CR8 = 1 << 7;
/** The following leave with EXIT_PRIVILEGED at the instruction. MOV to CR3. */
export const INTERCEPT_CR3_LOAD = 1 << 8;
/** Privileged instructions that set up the machine: LGDT, LIDT, LLDT, LTR, MOV to and from DR, CLTS, LMSW, XSETBV, INVD, WBINVD, RDPMC. */
export const INTERCEPT_PRIVILEGED = 1 << 9;
/** Instructions whose effect depends on the privilege level and that kernels use all the time: CLI, STI, POPF that changes IF or IOPL, SWAPGS,
 *  STAC, CLAC, moves from CR; below CPL 3 also loads of segment registers and far transfers with IRET, SYSRET and SYSEXIT. */
export const INTERCEPT_SENSITIVE = 1 << 10;
/** IRET, RETF, SYSRET and SYSEXIT to CPL 3. */
export const INTERCEPT_RETURN = 1 << 11;
/** Ways into the kernel beside SYSCALL: SYSENTER and call gates; INT n, INT3, INTO and INT1 leave with EXIT_SOFT_INT. */
export const INTERCEPT_ENTRY = 1 << 12;
/** One kind of instruction each, as VMX has it: XSETBV; INVD and WBINVD; MONITOR and MWAIT; RDPMC. */
export const INTERCEPT_XSETBV = 1 << 13;
export const INTERCEPT_CACHE = 1 << 14;
export const INTERCEPT_MONITOR = 1 << 15;
export const INTERCEPT_RDPMC = 1 << 16;
/** VMCALL leaves with EXIT_VMCALL, which needs no decoding, instead of EXIT_PRIVILEGED. */
export const INTERCEPT_VMCALL = 1 << 17;

/** S_EXC value of the pseudo-exception that asks to run the instruction again, alone, in the interpreter. */
export const EXC_RESTART = 0x100;
/** S_EXC value: run the instruction at RIP by itself (EXIT_STEP). */
export const EXC_STEP = 0x102;
/** S_EXC value: the TypeScript handler wants `run` to return EXIT_REQUEST at this instruction. */
export const EXC_REQUEST = 0x101;

/** Return values of handlers, compiled regions and `run`. Below 16: stay in Wasm. */
/** Go on at S_RIP. */
export const NEXT = 0;
/** Go on at S_RIP after comparing S_ICOUNT with its limit (taken backward and all indirect branches). */
export const NEXT_CHECK = 1;
/** From compiled code that did nothing: go on at S_RIP, one block in the interpreter (SSE would fault, or MXCSR asks for other arithmetic). */
export const NEXT_INTERPRET = 2;
/** S_EXC is set. RIP is at the faulting instruction. */
export const EXIT_EXCEPTION = 16;
/** S_ICOUNT reached its limit. */
export const EXIT_LIMIT = 17;
/** SYSCALL that the switcher did not serve; RIP at the instruction, S_EXIT_INSN_LEN set. */
export const EXIT_SYSCALL = 18;
export const EXIT_HLT = 19;
export const EXIT_CPUID = 20;
export const EXIT_MSR_READ = 21;
export const EXIT_MSR_WRITE = 22;
/** IN/OUT/INS/OUTS: S_EXIT_VA low 16 = port, S_EXIT_ACCESS, S_EXIT_SIZE; RIP at the instruction. */
export const EXIT_IO = 23;
/** MOV to/from CR/DR, CLTS, LMSW, INVLPG...: the handler decodes at RIP. */
export const EXIT_PRIVILEGED = 24;
/** INT n / INT3 / INTO: S_EXIT_VA = vector; RIP at the instruction. */
export const EXIT_SOFT_INT = 25;
/** A TypeScript import handler asked to stop. */
export const EXIT_REQUEST = 26;
/** The instruction must be done by TypeScript (far transfers, task switches...). RIP at it. */
export const EXIT_EMULATE = 27;
/** The block at RIP is not decoded: TypeScript decodes it and enters again (not a VM exit). */
export const EXIT_DECODE = 28;
/** EXC_RESTART: TypeScript drops code and single-steps (not a VM exit). */
export const EXIT_RESTART = 29;
/** An exception could not be delivered, nor the double fault after it. */
export const EXIT_SHUTDOWN = 30;
/** TypeScript runs one instruction by itself (TF, or a shadow before an event) and enters again (not a VM exit). */
export const EXIT_STEP = 31;
/** An external interrupt could be delivered now, as S_INTR = INTR_WINDOW asked. */
export const EXIT_INTR_WINDOW = 32;
/** MOV to CR8 is done and S_CR8 is below V_TPR_THRESHOLD, as INTERCEPT_CR8 asked. */
export const EXIT_CR8 = 33;
/** PAUSE in a loop longer than V_PLE_WINDOW; RIP after it. */
export const EXIT_PAUSE = 34;
/** VMCALL at any privilege level, as INTERCEPT_VMCALL asked; RIP at it. */
export const EXIT_VMCALL = 35;
/** PAUSE in a loop longer than V_SPIN_WINDOW: let another vCPU run (not a VM exit); RIP after it. */
export const EXIT_SPIN = 36;
