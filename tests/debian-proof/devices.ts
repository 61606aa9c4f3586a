// Devices that have a host's side: what the guest does with them is looked at from there.
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { PcDevices, VmOptions } from '../../packages/pvm/src/index.ts';
import type { GuestSession } from './session.ts';

const MIB = 2 ** 20;
export const SCRATCH_MIB = 64;
const CHANNEL = 'org.pvm.proof';

/** Folders and files of the host that the proof's machine has. */
export interface HostSide {
  /** A raw disk of `SCRATCH_MIB`, written through. */
  readonly scratch: string;
  /** What the guest calls it. */
  readonly device: string;
  /** Shared with the guest under the tag `host`. */
  readonly folder: string;
  readonly channel: { readonly input: PassThrough; readonly output: PassThrough };
}

/** Puts what the proof of the devices needs into an empty folder. */
export function hostSide(work: string, device = '/dev/vdb'): HostSide {
  const scratch = join(work, 'scratch.img');
  const folder = join(work, 'shared');
  mkdirSync(folder, { recursive: true });
  const fd = openSync(scratch, 'w+');
  for (let i = 0; i < SCRATCH_MIB; i++) writeSync(fd, randomBytes(MIB));
  closeSync(fd);
  return { scratch, device, folder, channel: { input: new PassThrough(), output: new PassThrough() } };
}

/** The options of `createVm` for its devices; the scratch disk comes after `disks`. */
export function deviceOptions(host: HostSide, ...disks: readonly string[]): VmOptions {
  return {
    drives: [...disks.map((file) => ({ file, snapshot: true })), { file: host.scratch }],
    shares: [{ folder: host.folder, tag: 'host' }],
    consolePorts: [{}, { name: CHANNEL, input: host.channel.input, output: host.channel.output }],
    vsock: true,
    balloon: true,
  };
}

/** One device that has to work, seen from both sides. */
export interface DeviceItem {
  readonly name: string;
  /** More than a kernel, Python and BusyBox: a Debian on disk, or one with the generic kernel, whose modules the cloud kernel lacks. */
  readonly needs?: 'debian' | 'generic';
  /** @throws Error that says what is wrong */
  readonly prove: (guest: GuestSession, host: HostSide) => Promise<void>;
}

function devices({ vm }: GuestSession): PcDevices {
  if (vm.devices === undefined) throw new Error('the machine is no PC');
  return vm.devices;
}

function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** Runs a command that has to end well. @returns its output */
async function done(guest: GuestSession, command: string, timeoutMs = 600_000): Promise<string> {
  const { status, output } = await guest.run(command, timeoutMs);
  must(status === 0, `status ${status}: ${output}`);
  return output.trim();
}

function sha256(path: string, from: number, bytes: number): string {
  const fd = openSync(path, 'r');
  try {
    const data = Buffer.alloc(bytes);
    readSync(fd, data, 0, bytes, from);
    return createHash('sha256').update(data).digest('hex');
  } finally {
    closeSync(fd);
  }
}

async function disk(guest: GuestSession, host: HostSide): Promise<void> {
  const read = await done(guest, `dd if=${host.device} bs=1M count=16 iflag=direct 2>/dev/null | sha256sum`);
  must(read.startsWith(sha256(host.scratch, 0, 16 * MIB)), `what the host wrote is read as ${read}`);
  const written = await done(
    guest,
    `dd if=/dev/urandom of=/tmp/r bs=1M count=16 2>/dev/null; dd if=/tmp/r of=${host.device} bs=1M seek=16 oflag=direct conv=fsync 2>/dev/null && sha256sum < /tmp/r; rm /tmp/r`,
  );
  must(written.startsWith(sha256(host.scratch, 16 * MIB, 16 * MIB)), 'the host reads something else than the guest wrote');
}

async function fileSystem(guest: GuestSession, host: HostSide): Promise<void> {
  await done(guest, `blkdiscard -o 32M -l 8M ${host.device} && blkdiscard -z -o 40M -l 8M ${host.device} && blockdev --flushbufs ${host.device}`);
  must(
    sha256(host.scratch, 40 * MIB, 8 * MIB) ===
      createHash('sha256')
        .update(Buffer.alloc(8 * MIB))
        .digest('hex'),
    'write-zeroes left something',
  );
  const fs = await done(
    guest,
    `mkfs.ext4 -q -F ${host.device} && mkdir -p /mnt/x && mount ${host.device} /mnt/x && cp -a /usr/lib/python3.11/json /usr/bin/perl /mnt/x && sync && umount /mnt/x && e2fsck -fn ${host.device} && mount -o ro ${host.device} /mnt/x && cmp /usr/bin/perl /mnt/x/perl && umount /mnt/x && echo same`,
  );
  must(/^same$/m.test(fs), fs);
}

const NAMES = 3000;
async function share(guest: GuestSession, { folder }: HostSide): Promise<void> {
  writeFileSync(join(folder, 'from-host'), 'written by the host\n');
  mkdirSync(join(folder, 'sub'), { recursive: true });
  symlinkSync('../../../../etc/hostname', join(folder, 'leak'));
  await done(guest, 'mkdir -p /mnt/h && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /mnt/h');
  must((await done(guest, 'cat /mnt/h/from-host')) === 'written by the host', 'the guest reads something else than the host wrote');
  must((await done(guest, 'cat /mnt/h/leak')) === 'debian', "a link led out of the guest's tree");
  const steps = await done(
    guest,
    `cd /mnt/h/sub && echo one > a && echo two >> a && mv a b && ln -s b link && ln b hard && chmod 640 b && mkdir -p d/e && mv d f && touch -d 2001-02-03T04:05:06Z f/e/old
cat link && stat -c '%a %h %F' b && readlink link && stat -c %Y f/e/old && rmdir f/e 2>&1; rm f/e/old && rmdir f/e && ls f && truncate -s 5 b && wc -c < hard
mkdir -m 777 open && stat -c %a open; (umask 0; echo > rw); stat -c %a rw; printf 'caf\\303\\251 \\377' > "$(printf 'name \\303\\251 \\377')"; ls | wc -l
python3 -c '
import os
f = open("gone", "w+"); f.write("x" * 100); f.flush(); os.unlink("gone"); f.truncate(7); os.fchmod(f.fileno(), 0o600)
print(os.fstat(f.fileno()).st_size)
with open("app", "a") as a: a.write("1"); a.flush(); a.write("2")
os.rename("app", "rw"); print(open("rw").read())
import mmap
m = open("map", "w+b"); m.truncate(8192); x = mmap.mmap(m.fileno(), 8192, mmap.MAP_PRIVATE); x[5000] = 7; print(x[5000])
'; cd /`,
  );
  must(
    steps ===
      ['one', 'two', '640 2 regular file', 'b', '981173106', "rmdir: failed to remove 'f/e': Directory not empty", '5', '777', '666', '7', '7', '12', '7'].join(
        '\n',
      ),
    `steps went otherwise:\n${steps}`,
  );
  must(readlinkSync(join(folder, 'sub/link')) === 'b' && (lstatSync(join(folder, 'sub/b')).mode & 0o777) === 0o640, 'the host sees other links and modes');
  must(readdirSync(join(folder, 'sub'), { encoding: 'latin1' }).includes('name \xc3\xa9 \xff'), 'a name that is not UTF-8 is another on the host');
  const sums = await done(
    guest,
    `head -c 40M /dev/urandom > /dev/shm/r; cp /dev/shm/r /mnt/h/large && sha256sum < /dev/shm/r; rm /dev/shm/r; sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum < /mnt/h/large`,
  );
  const [first, second] = sums.split('\n');
  must(first === second && sums.startsWith(sha256(join(folder, 'large'), 0, 40 * MIB)), 'a large file differs');
  const sparse = await done(
    guest,
    'dd if=/etc/passwd of=/mnt/h/sparse bs=1 count=1 seek=5G status=none && stat -c %s /mnt/h/sparse && dd if=/mnt/h/sparse bs=1 skip=5G status=none',
  );
  must(sparse === '5368709121\nr', `a file of more than 4 GiB: ${sparse}`);
  const many = await done(
    guest,
    `mkdir /mnt/h/many && cd /mnt/h/many && python3 -c 'for i in range(${NAMES}): open(f"f{i}", "w").write(str(i))' && ls | wc -l && cat f* | wc -c && cd /`,
  );
  must(readdirSync(join(folder, 'many')).length === NAMES && readFileSync(join(folder, 'many/f77'), 'utf8') === '77', 'the host sees other files');
  must(many.startsWith(`${NAMES}\n`), many);
  await done(
    guest,
    'umount /mnt/h && mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose host /mnt/h && find /mnt/h -type f | xargs -d "\\n" stat -c %s > /dev/null && rm -r /mnt/h/many && umount /mnt/h',
  );
}

async function vsock(guest: GuestSession): Promise<void> {
  const sockets = devices(guest).vsock;
  must(sockets !== undefined, 'the machine has no vsock');
  const heard = Promise.withResolvers<string>();
  const stop = sockets.listen(1234, (socket) => {
    buffer(socket).then((data) => {
      heard.resolve(createHash('sha256').update(data).digest('hex'));
      socket.end('thank you');
    }, heard.reject);
  });
  const sent = await done(
    guest,
    `modprobe vmw_vsock_virtio_transport 2>/dev/null; python3 -c '
import socket, os, hashlib
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); s.connect((2, 1234))
d = os.urandom(1000000); s.sendall(d); s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode(), hashlib.sha256(d).hexdigest())
try: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 4321))
except OSError as e: print(e.strerror)'`,
  );
  stop();
  must(sent === `thank you ${await heard.promise}\nConnection reset by peer`, sent);
  await done(
    guest,
    `python3 -c '
import socket, os
l = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); l.bind((socket.VMADDR_CID_ANY, 77)); l.listen()
if os.fork() == 0:
  s, _ = l.accept()
  n = 0
  while (d := s.recv(65536)): n += len(d)
  s.sendall(str(n).encode()); s.close()
  os._exit(0)'`,
  );
  const socket = sockets.connect(77);
  socket.end(Buffer.alloc(700_001));
  must((await buffer(socket)).toString() === '700001', "the guest's server counted otherwise");
}

async function channel(guest: GuestSession, host: HostSide): Promise<void> {
  host.channel.input.write('ping\n');
  await done(
    guest,
    `modprobe virtio_console 2>/dev/null; udevadm settle; f=/dev/virtio-ports/${CHANNEL}; [ -e $f ] || f=$(ls /dev/vport*p1); exec 9<>$f; read -r x <&9; echo "got $x" >&9; exec 9>&-`,
  );
  const answer = String(await new Promise((resolve) => host.channel.output.once('data', resolve)));
  must(answer === 'got ping\n', `the host heard ${JSON.stringify(answer)}`);
}

async function consoleSize(guest: GuestSession): Promise<void> {
  devices(guest).resizeConsole(97, 31);
  must((await done(guest, 'modprobe virtio_console 2>/dev/null; sleep 1; stty -F /dev/hvc0 size')) === '31 97', 'hvc0 has another size');
  devices(guest).resizeConsole(120, 50);
  must((await done(guest, 'sleep 1; stty -F /dev/hvc0 size')) === '50 120', 'hvc0 did not follow');
}

async function balloon(guest: GuestSession): Promise<void> {
  const free = async () => Number(await done(guest, "modprobe virtio_balloon 2>/dev/null; sleep 3; awk '/MemTotal/ { print $2 }' /proc/meminfo"));
  const before = await free();
  devices(guest).setBalloon(128 * MIB);
  const small = await free();
  must(devices(guest).balloon === 128 * MIB, `the balloon holds ${devices(guest).balloon} bytes`);
  must(Math.abs(before - small - 128 * 1024) < 1024, `MemTotal went from ${before} to ${small} KiB`);
  devices(guest).setBalloon(0);
  must((await free()) === before, 'the guest did not get its memory back');
}

async function rng(guest: GuestSession): Promise<void> {
  const text = await done(guest, 'modprobe virtio_rng 2>/dev/null; cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng | gzip -9 | wc -c');
  must(/^virtio_rng\.0\n/.test(text) && Number(text.split('\n')[1]) > 4000, text);
}

export const DEVICE_ITEMS: readonly DeviceItem[] = [
  { name: 'virtio disk: checksums on both sides', prove: disk },
  { name: 'virtio disk: discard, zeroes, ext4', prove: fileSystem, needs: 'debian' },
  { name: '9p: read, write, rename, links, modes, times, large, sparse and many files', prove: share, needs: 'generic' },
  { name: 'vsock: both ways, half closed, refused', prove: vsock },
  { name: 'virtio-serial channel', prove: channel },
  { name: 'virtio console: resize', prove: consoleSize },
  { name: 'balloon: inflate, deflate', prove: balloon },
  { name: 'virtio-rng', prove: rng },
];
