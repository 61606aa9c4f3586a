import { expect, test } from 'vitest';
import { consolePlan } from '../host/consoles.ts';
import { vsockPlan } from '../host/vsock-bridge.ts';
import { parseRunArguments, runSettings } from './run-arguments.ts';

async function understand(...words: string[]) {
  const { args, program } = await parseRunArguments(words);
  return { ...runSettings(args, program), console: consolePlan(args), vsock: vsockPlan(args) };
}

test.each([
  ['an unknown key of a drive', ['--drive', 'file=x,raedonly=on'], /do not know "raedonly"; did you mean readonly\?/],
  ['a drive of another kind', ['--drive', 'file=x,format=qcow2'], /only format=raw is there/],
  ['a drive without a file', ['--drive', 'snapshot=on'], /names no image/],
  ['a share without a tag', ['--share', '/tmp'], /expected FOLDER:TAG/],
  ['a device that has another option', ['--device', 'virtio-blk-pci,drive=x'], /only isa-debug-exit/],
  ['a port that is none', ['--device', 'isa-debug-exit,iobase=0x10000'], /a number up to 0xfffc/],
  ['a serial port to somewhere else', ['--serial', 'tcp::4444'], /expected stdio, none or file:PATH/],
  ['two consoles on one terminal', ['--serial', 'stdio', '--virtio-console', 'stdio'], /cannot both be stdio/],
  ['a channel without an address', ['--channel', 'agent'], /expected NAME:ADDRESS/],
  ['an address of no known kind', ['--channel', 'agent:pipe:x'], /expected an address unix:PATH or tcp:HOST:PORT, got "pipe:x"/],
  ['a vsock port that is none', ['--vsock', 'http:tcp:localhost:80'], /expected a port/],
  ['an address with a port beyond all', ['--vsock', '80:tcp:localhost:99999'], /unix:PATH or tcp:HOST:PORT/],
  ['no time at all', ['--timeout', '0'], /expected seconds, more than 0/],
  ['a port for gdb that is none', ['--gdb', 'localhost:gdb'], /--gdb localhost:gdb: expected a port, 0 to 65535, or HOST:PORT/],
  ['a port for gdb beyond all', ['--gdb', '70000'], /expected a port, 0 to 65535/],
  ['a wait for nothing', ['--wait'], /--wait belongs to --gdb PORT/],
  ['a balloon of nothing known', ['--balloon=big'], /expected a size such as 64M/],
  ['a serial port beside a program', ['--serial', 'none', './prog'], /--serial is for a stock kernel/],
])('refuses %s', async (_, words, message) => {
  await expect(understand('--kernel', 'x', ...words)).rejects.toThrow(message);
});

test("understands QEMU's words, and long options beside them", async () => {
  const words = ['-kernel', 'k', '-m', '96', '-drive', 'file=a,b.img,if=virtio', '-share', '/srv:data:ro', '-vsock', '80:tcp::8080', '-balloon'];
  await expect(understand(...words)).rejects.toThrow(/do not know "b.img"/);
  words[5] = 'file=a.img,if=virtio,snapshot=on,serial=s1';
  expect(await understand(...words, '--append=a b', '--vsock-listen', 'unix:s:5')).toMatchObject({
    kernel: 'k',
    memory: '96M',
    drives: [{ file: 'a.img', readOnly: false, snapshot: true, serial: 's1' }],
    shares: [{ folder: '/srv', tag: 'data', readOnly: true }],
    balloon: true,
    vsock: { fromGuest: [{ port: 80, address: { host: 'localhost', port: 8080 } }], toGuest: [{ port: 5, address: { path: 's' } }] },
    console: { serial: 'stdio', virtio: undefined, channels: [] },
    commandLine: 'a b',
    reboot: true,
  });
  expect((await understand('-kernel', 'k', '-virtio-console', 'stdio')).console).toMatchObject({ serial: 'none', virtio: 'stdio' });
});
