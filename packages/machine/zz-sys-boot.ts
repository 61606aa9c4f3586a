import { readFileSync } from 'node:fs';
import { CpuCore } from '@pvm/cpu-jit';
import * as L from '@pvm/cpu-jit/layout';
import { Board, GuestRam, loadKernel } from '@pvm/machine';
const jit = (process.env.JIT ?? 'on') as 'off' | 'on' | 'sync';
const MEM = Number(process.env.MEM ?? 512) << 20;
const late: any = {};
const core = await CpuCore.create({ ramBytes: MEM, jit, clock: 'icount', hooks: { mmuFault: () => 1, mmio: (v) => late.mmio(v) } });
const cpu = core.cpuAddress(0);
const u32 = (o: number) => core.view.getUint32(cpu + o, true);
const u64 = (o: number) => core.view.getBigUint64(cpu + o, true);
const set32 = (o: number, v: number) => core.view.setUint32(cpu + o, v >>> 0, true);
const set64 = (o: number, v: bigint) => core.view.setBigUint64(cpu + o, BigInt.asUintN(64, v), true);
set32(L.V_TSC_MUL, 1);
let skip = 0;
const icount = () => Number(u64(L.S_ICOUNT));
const now = () => icount() + skip;
const ram = new GuestRam(core.memory.buffer, core.ramBase, core.ramBytes, (g, n) => core.dirtyCode(core.ramBase + g, n));
let stop = '';
let text = '';
let serialLine = '';
const board = new Board({ ram, now, wallClock: () => 1_700_000_000_000_000_000n + BigInt(now()), tscToNs: (_v, t) => Number(t - u64(L.S_TSC_OFFSET)) + skip,
  serialOutput: (d) => { process.stdout.write(d); text += new TextDecoder().decode(d); }, onReset: () => { stop = 'reset'; }, onPowerOff: () => { stop = 'poweroff'; }, onDebugExit: (c) => { stop = 'exit ' + c; },
  random: (b) => { for (let i = 0; i < b.length; i++) b[i] = (Math.random() * 256) | 0; },
  virtio: process.env.VIRTIO === 'mmio' ? 'mmio' : 'pci',
  drives: process.env.DISK ? [{ file: process.env.DISK, snapshot: true }] : [],
  kick: () => { late.kick = true; }, onDeadlineChange: () => { late.deadline = true; } });
const rsdp = board.writeFirmwareTables();
function cpio(files: [string, number, Uint8Array, number?, number?][]) {
  const out: Buffer[] = []; let ino = 1;
  for (const [name, mode, data, maj = 0, min = 0] of [...files, ['TRAILER!!!', 0, new Uint8Array(0)] as any]) {
    const h = ['070701', ...[ino++, mode, 0, 0, 1, 0, data.length, 0, 0, maj, min, name.length + 1, 0].map((n) => n.toString(16).padStart(8, '0'))].join('');
    const head = Buffer.from(h + name + '\0'); out.push(head, Buffer.alloc((4 - head.length % 4) % 4), Buffer.from(data), Buffer.alloc((4 - data.length % 4) % 4));
  }
  return new Uint8Array(Buffer.concat(out));
}
const init = process.env.INIT ? readFileSync(process.env.INIT, 'utf8') : `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo INIT REACHED
uname -a
cat /proc/interrupts
ls /sys/bus/pci/devices /sys/bus/virtio/devices
date
sleep 1
echo done; poweroff -f
`;
const bb = new Uint8Array(readFileSync('/tmp/board/ird/bin/busybox'));
const initrd = cpio([['bin', 0o40755, new Uint8Array(0)], ['dev', 0o40755, new Uint8Array(0)], ['proc', 0o40755, new Uint8Array(0)], ['sys', 0o40755, new Uint8Array(0)], ['dev/console', 0o20600, new Uint8Array(0), 5, 1],
  ['bin/busybox', 0o100755, bb], ...'sh mount echo uname cat ls poweroff sleep date dmesg insmod md5sum dd grep sync true false head tail lsmod ps free stty tty wc reboot setsid cttyhack mkdir umount sha256sum cp rm touch ln readlink seq'.split(' ').map((n) => ['bin/' + n, 0o120777, new TextEncoder().encode('busybox')] as any), ['init', 0o100755, new TextEncoder().encode(init)],
  ...(process.env.MODULES ?? '').split(' ').filter(Boolean).map((p) => [p.split('/').at(-1), 0o100644, new Uint8Array(readFileSync(p))] as any)]);
const entry = loadKernel(ram, { kernel: new Uint8Array(readFileSync(process.env.KERNEL ?? '/tmp/board/x/boot/vmlinuz-6.1.0-56-cloud-amd64')), commandLine: process.env.APPEND ?? 'console=ttyS0 earlyprintk=serial,ttyS0,115200 mitigations=off ignore_loglevel panic=-1', initrd, rsdp });
console.error(entry.protocol, entry.rip.toString(16));
// CPUID
const bits = (...b: number[]) => b.reduce((a, x) => (a | (1 << x)) >>> 0, 0);
const leaves: number[][] = [
  [0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69],
  [1, 0x000306a9, 0x00010800, bits(0, 9, 13, 19, 20, 21, 23, 24, 31), bits(0, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 19, 23, 24, 25, 26)],
  [7, 0, 0, 0, 0],
  [0x15, 1, 1, 1000000000, 0], [0x16, 1000, 1000, 100, 0],
  [0x40000000, 0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d], [0x40000001, 0, 0, 0, 0], [0x40000010, 1000000, 1000000, 0, 0],
  [0x80000000, 0x80000008, 0, 0, 0], [0x80000001, 0, 0, bits(0), bits(11, 20, 29)], [0x80000007, 0, 0, 0, bits(8)], [0x80000008, 0x302e, 0, 0, 0],
];
leaves.forEach(([leaf, a, b, c, d], i) => { const at = L.CPUID_ENTRIES + i * L.CPUID_ENTRY_SIZE; [leaf, L.CPUID_ANY_SUBLEAF, a, b, c, d].forEach((v, j) => set32(at + j * 4, v as number)); });
set32(L.CPUID_COUNT, leaves.length);
const z = entry.registers;
core.enterFlat(0, entry.mode, { rip: entry.rip, rsi: z.rsi ?? 0n, rax: z.rax ?? 0n, rbx: z.rbx ?? 0n, cr3: BigInt(entry.cr3), gdt: { base: BigInt(entry.gdtr.base), limit: entry.gdtr.limit } });
const mmioCount = new Map<number, number>();
late.mmio = () => {
  const gpa = Number(u64(L.S_EXIT_GPA)); const size = u32(L.S_EXIT_SIZE); const write = u32(L.S_EXIT_ACCESS) === L.ACCESS_WRITE;
  mmioCount.set(gpa, (mmioCount.get(gpa) ?? 0) + 1);
  if (process.env.TRACE) console.error('mmio', gpa.toString(16), size, write, write ? u64(L.S_EXIT_VALUE).toString(16) : '');
  if (write) { const v = u64(L.S_EXIT_VALUE); for (let i = 0; i < size; i += 4) board.writeMmio(0, gpa + i, Math.min(4, size) as 1, Number((v >> BigInt(8 * i)) & 0xffffffffn) % 2 ** (8 * Math.min(4, size))); }
  else { let v = 0n; for (let i = 0; i < size; i += 4) v |= BigInt(board.readMmio(0, gpa + i, Math.min(4, size) as 1)) << BigInt(8 * i); set64(L.S_EXIT_VALUE, v); }
  return 2;
};
const prof: [number, string][] = [];
const sink = board.interrupts[0]!;
const start = performance.now(); const exits = new Map<string, number>(); const msrs = new Map<string, number>();
const LIMIT_S = Number(process.env.SECONDS ?? 120);
let lastReport = start;
let sliceEnd = 0;
outer: while (stop === '') {
  board.runTimers();
  if (sink.takeNmi()) core.setNmi(0);
  if (sink.pendingVector() >= 0) { if (core.interruptible(0)) core.setInterrupt(0, sink.acknowledge()); else core.requestInterruptWindow(0); }
  const deadline = Math.min(board.nextDeadline() - skip, icount() + (process.env.PROF ? 1_000_000 : 50_000_000));
  core.setLimit(0, BigInt(Math.max(icount() + 1, Math.ceil(deadline))));
  late.deadline = false;
  const r = core.run(0);
  exits.set(String(r), (exits.get(String(r)) ?? 0) + 1);
  switch (r) {
    case L.EXIT_LIMIT: if (process.env.PROF) { const k = core.getRip(0).toString(16); prof.push([now(), k]); } break; case (L as any).EXIT_INTR_WINDOW: break;
    case L.EXIT_IO: {
      skip += 1000; set64(L.S_TSC_OFFSET, u64(L.S_TSC_OFFSET) + 1000n);
      const port = u32(L.S_EXIT_VA) & 0xffff, size = u32(L.S_EXIT_SIZE) as 1;
      if (process.env.TRACE) console.error('io', port.toString(16), size, u32(L.S_EXIT_ACCESS));
      if (u32(L.S_EXIT_ACCESS) === L.ACCESS_READ) core.completeIo(0, board.readPort(port, size));
      else { const v = Number(u64(L.S_EXIT_VALUE) & 0xffffffffn) % 2 ** (8 * size); board.writePort(port, size, v); core.completeIo(0); }
      break;
    }
    case L.EXIT_HLT: {
      while (stop === '' && !(sink.pendingVector() >= 0 && core.interruptible(0))) {
        const next = board.nextDeadline();
        if (!Number.isFinite(next)) { stop = 'halted for ever'; break outer; }
        const d = next - now(); if (d > 0) { const n = Math.ceil(d); skip += n; set64(L.S_TSC_OFFSET, u64(L.S_TSC_OFFSET) + BigInt(n)); }
        board.runTimers();
      }
      break;
    }
    case L.EXIT_MSR_READ: {
      const msr = Number(core.getReg(0, 1) & 0xffffffffn); msrs.set('r' + msr.toString(16), (msrs.get('r' + msr.toString(16)) ?? 0) + 1);
      const v = board.ownsMsr(msr) ? board.readMsr(0, msr) : msr === 0x8b ? 0n : undefined;
      if (v === undefined) { core.raise(0, 13); break; }
      core.setReg(0, 0, v & 0xffffffffn); core.setReg(0, 2, v >> 32n); core.complete(0); break;
    }
    case L.EXIT_MSR_WRITE: {
      const msr = Number(core.getReg(0, 1) & 0xffffffffn); msrs.set('w' + msr.toString(16), (msrs.get('w' + msr.toString(16)) ?? 0) + 1);
      const v = (core.getReg(0, 0) & 0xffffffffn) | ((core.getReg(0, 2) & 0xffffffffn) << 32n);
      if (board.ownsMsr(msr) ? board.writeMsr(0, msr, v) : msr === 0x8b) core.complete(0); else core.raise(0, 13);
      break;
    }
    default: {
      const insn = core.decodeAt(0, core.getRip(0));
      console.error('exit', r, 'rip', core.getRip(0).toString(16), 'exc', u32(L.S_EXC), u32(L.S_EXC_ERROR).toString(16), u64(L.S_EXC_ADDR).toString(16), typeof insn === 'string' ? insn : insn.row.name);
      stop = 'unknown exit';
    }
  }
  if (performance.now() - lastReport > 5000) { lastReport = performance.now(); console.error(`[${((lastReport - start) / 1000).toFixed(0)}s icount ${(icount() / 1e6).toFixed(0)}M now ${(now() / 1e9).toFixed(3)} rip ${core.getRip(0).toString(16)}]`); if (process.env.TSTEP) { console.error([...exits], [...msrs]); } }
  if (performance.now() - start > LIMIT_S * 1000) stop = 'time';
  if (performance.now() > sliceEnd) { board.flushSerial(); await new Promise((res) => setImmediate(res)); sliceEnd = performance.now() + 15; }
}
board.flushSerial();
console.error('\nSTOP', stop, 'rip', core.getRip(0).toString(16), 'icount', icount(), 'sec', (performance.now() - start) / 1000);
for (let i = 0; i < 16; i++) console.error(i, core.getReg(0, i).toString(16));
console.error([...exits].join(' '), '\n', [...msrs].join(' '), '\n', [...mmioCount].map(([a, n]) => a.toString(16) + ':' + n).join(' '));
if (process.env.PROF) (await import('node:fs')).writeFileSync('/tmp/board/prof.txt', prof.map((p) => p.join(' ')).join('\n'));
console.error(JSON.stringify(core.stats(0), (_k, v) => typeof v === 'bigint' ? Number(v) : v));
board.dispose(); await core.dispose(); process.exit(0);
