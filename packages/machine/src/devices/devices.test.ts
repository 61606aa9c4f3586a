import { describe, expect, it } from 'vitest';
import { testBoard } from '../testing/test-board.ts';
import { Uart16550 } from './uart16550.ts';

describe('16550', () => {
  function uart() {
    const levels: boolean[] = [];
    let sent = '';
    const u = new Uart16550(
      (byte) => {
        sent += String.fromCharCode(byte);
      },
      0x3f8,
      (level) => levels.push(level),
    );
    const out = (register: number, value: number) => void u.write(0x3f8 + register, 1, value);
    const inp = (register: number) => u.read(0x3f8 + register, 1);
    return { u, out, inp, sent: () => sent, line: () => levels.at(-1) };
  }

  it('announces the empty transmitter at once and again after each byte', () => {
    const { out, inp, line, sent } = uart();
    out(4, 0x08);
    out(1, 0x02);
    expect(line()).toBe(true);
    expect(inp(2)).toBe(0x02);
    expect(line()).toBe(false);
    out(0, 0x41);
    expect(line()).toBe(true);
    expect(sent()).toBe('A');
  });

  it('announces received bytes until they are read', () => {
    const { u, out, inp, line } = uart();
    out(2, 0x81);
    out(4, 0x08);
    out(1, 0x01);
    u.receive([0x61, 0x62]);
    expect(line()).toBe(true);
    expect(inp(2)).toBe(0xcc);
    u.receive(new Array(6).fill(0x20));
    expect(inp(2)).toBe(0xc4);
    expect(inp(5) & 1).toBe(1);
    expect([inp(0), inp(0)]).toEqual([0x61, 0x62]);
    for (let i = 0; i < 6; i++) inp(0);
    expect(line()).toBe(false);
    expect(inp(5)).toBe(0x60);
  });

  it('keeps what is typed early from probing drivers, and shows it to one that has the interrupt on', () => {
    const { u, out, inp, line } = uart();
    u.receive([0x61, 0x62]);
    // What Linux does on finding and opening a port (8250_port.c): test IER, clear the FIFOs, read every register, then open.
    out(1, 0x0f);
    expect(inp(1)).toBe(0x0f);
    out(1, 0);
    for (const fcr of [1, 7, 0]) out(2, fcr);
    for (const register of [5, 0, 2, 6, 5, 5, 0, 2, 6]) expect(inp(register) & (register === 5 ? 1 : 0)).toBe(0);
    expect(u.waiting).toBe(2);
    out(4, 0x08);
    out(1, 0x05);
    expect(line()).toBe(true);
    expect([inp(0), inp(0)]).toEqual([0x61, 0x62]);
  });

  it('shows input to a guest that polls for it, but not to one that polls before it writes', () => {
    const { u, out, inp } = uart();
    u.receive([0x61]);
    for (let i = 0; i < 100; i++) {
      for (let poll = 0; poll < 8; poll++) expect(inp(5) & 1).toBe(0);
      out(0, 0x20);
    }
    let polls = 0;
    while ((inp(5) & 1) === 0) expect(++polls).toBeLessThan(20);
    expect(inp(0)).toBe(0x61);
  });

  it('loops bytes and modem lines back', () => {
    const { out, inp, sent } = uart();
    out(4, 0x1a);
    expect(inp(6) & 0xf0).toBe(0x90);
    out(0, 0x55);
    expect(inp(0)).toBe(0x55);
    expect(sent()).toBe('');
    out(4, 0x08);
    expect(inp(6) & 0xf0).toBe(0xb0);
  });

  it('has the scratch register, divisor latch and FIFO that probes look for', () => {
    const { out, inp } = uart();
    out(7, 0xa5);
    expect(inp(7)).toBe(0xa5);
    out(3, 0x83);
    out(0, 0x0c);
    expect(inp(0)).toBe(0x0c);
    out(3, 0x03);
    expect(inp(2)).toBe(0x01);
    out(2, 0x01);
    expect(inp(2)).toBe(0xc1);
  });
});

describe('small devices', () => {
  it('fw_cfg has its signature, a directory of files and DMA', () => {
    const { board, ram } = testBoard({ fwCfgFiles: new Map([['opt/x', new Uint8Array([1, 2, 3])]]) });
    board.writePort(0x510, 2, 0);
    expect(String.fromCharCode(...[0, 1, 2, 3].map(() => board.readPort(0x511, 1)))).toBe('QEMU');
    board.writePort(0x510, 2, 0x19);
    const directory = Array.from({ length: 17 }, () => board.readPort(0x511, 1));
    expect(directory.slice(0, 10)).toEqual([0, 0, 0, 1, 0, 0, 0, 3, 0, 0x20]);
    expect(String.fromCharCode(...directory.slice(12, 17))).toBe('opt/x');
    ram.view.setUint32(0x1000, (0x20 << 16) | 0x0a);
    ram.view.setUint32(0x1004, 4);
    ram.view.setBigUint64(0x1008, 0x2000n);
    board.writePort(0x514, 4, 0);
    board.writePort(0x518, 4, 0x0010_0000);
    expect(ram.view.getUint32(0x1000)).toBe(0);
    expect([...ram.bytes.slice(0x2000, 0x2004)]).toEqual([1, 2, 3, 0]);
  });

  it('the keyboard controller passes its self test and gates nothing', () => {
    const { board } = testBoard();
    board.writePort(0x64, 1, 0xaa);
    expect(board.readPort(0x64, 1) & 1).toBe(1);
    expect(board.readPort(0x60, 1)).toBe(0x55);
    expect(board.readPort(0x64, 1) & 1).toBe(0);
  });

  it('PCI configuration space shows the host bridge and nothing behind it', () => {
    const { board } = testBoard();
    board.writePort(0xcf8, 4, 0x8000_0000);
    expect(board.readPort(0xcfc, 4)).toBe(0x0008_1b36);
    expect(board.readPort(0xcfe, 2)).toBe(0x0008);
    board.writePort(0xcf8, 4, 0x8000_0008);
    expect(board.readPort(0xcff, 1)).toBe(0x06);
    board.writePort(0xcf8, 4, 0x8000_0800);
    expect(board.readPort(0xcfc, 4)).toBe(0xffff_ffff);
  });
});

describe('the mark port', () => {
  it('takes number and operations of an interval in one write of 32 bits, and only that', () => {
    const marks: string[] = [];
    const onMark = (operations: number, id: number) => {
      marks.push(`${id}: ${operations}`);
      return undefined;
    };
    const { board } = testBoard({ onMark });
    board.writePort(0x508, 4, (200 << 24) | 0xff_ffff);
    board.writePort(0x508, 4, 200 << 24);
    board.writePort(0x508, 1, 7);
    board.writePort(0x50a, 2, 7);
    expect(marks).toEqual(['200: 16777215', '200: 0']);
    expect(board.readPort(0x508, 4)).toBe(0xffff_ffff);
  });
});

describe('keyboard', () => {
  const taken = (board: ReturnType<typeof testBoard>['board']): number[] => {
    const bytes: number[] = [];
    while ((board.readPort(0x64, 1) & 1) !== 0) bytes.push(board.readPort(0x60, 1));
    return bytes;
  };

  it.each([
    ['a', [0x1e, 0x9e]],
    ['A!', [0x2a, 0x1e, 0x9e, 0xaa, 0x2a, 0x02, 0x82, 0xaa]],
    ['\x03\r', [0x1d, 0x2e, 0xae, 0x9d, 0x1c, 0x9c]],
    ['\x1b[A\x1b', [0xe0, 0x48, 0xe0, 0xc8, 0x01, 0x81]],
    ['\u00e4', []],
  ])('gives the codes of set 1 for %j, as firmware leaves it', (text, codes) => {
    const { board } = testBoard();
    board.typeKeys(text);
    expect(taken(board)).toEqual(codes);
  });

  it('gives the codes of set 2 when translation is off, and nothing while it is disabled', () => {
    const { board } = testBoard();
    board.writePort(0x64, 1, 0x60);
    board.writePort(0x60, 1, 0x14);
    board.typeKeys('q\x1b[C');
    expect(taken(board)).toEqual([]);
    board.writePort(0x64, 1, 0xae);
    expect(taken(board)).toEqual([0x15, 0xf0, 0x15, 0xe0, 0x74, 0xe0, 0xf0, 0x74]);
  });

  it('loses nothing that is typed faster than it is read, and interrupts for every byte', () => {
    const { board } = testBoard();
    board.pic.write(0x20, 1, 0x11);
    for (const byte of [0x20, 4, 1, 0xfd]) board.pic.write(0x21, 1, byte);
    board.typeKeys('x'.repeat(40));
    for (let i = 0; i < 80; i++) {
      // Poll mode: OCW3, then the line that asks (8259A, "Poll Command"), which it takes as acknowledged.
      board.writePort(0x20, 1, 0x0c);
      expect(board.readPort(0x20, 1)).toBe(0x81);
      expect(board.readPort(0x60, 1)).toBe(i % 2 === 0 ? 0x2d : 0xad);
      board.writePort(0x20, 1, 0x20);
    }
    expect(taken(board)).toEqual([]);
  });
});

it('the text screen is read from RAM: code page 437, and the colours of each character', () => {
  const { board, ram } = testBoard();
  ram.write(0xb8000, Uint8Array.of(0x41, 0x07, 0xdb, 0x1e, 0, 7));
  ram.write(0xb8000 + 24 * 160, Uint8Array.of(0x7e, 0x70));
  const rows = board.textScreen();
  expect(rows.map((row) => row.text.length)).toEqual(Array(25).fill(80));
  expect(rows[0]?.text.trimEnd()).toBe('A█');
  expect([...(rows[0]?.attributes ?? [])].slice(0, 3)).toEqual([0x07, 0x1e, 0x07]);
  expect([rows[24]?.text[0], rows[24]?.attributes[0]]).toEqual(['~', 0x70]);
});
