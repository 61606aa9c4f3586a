import type { GuestRam } from '../ram.ts';

/** Where VGA's text mode 3 has its characters: 2 bytes each, the character and its attribute. Plain RAM on this board. */
const TEXT_GPA = 0xb_8000;
const COLUMNS = 80;
const ROWS = 25;

/** Characters of code page 437 that are not ASCII: 0x00 to 0x1f, 0x7f, 0x80 to 0xff. */
const LOW = ' ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼';
const HIGH = 'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ';
const CHARACTERS = [...LOW, ...Array.from({ length: 0x5f }, (_, i) => String.fromCharCode(0x20 + i)), '⌂', ...HIGH];

/** A row of the screen: text, and where its colours change. */
export interface TextRow {
  readonly text: string;
  /** VGA attributes of the characters: foreground in bits 0-3, background in 4-6. */
  readonly attributes: Uint8Array;
}

/** What a guest has drawn on a colour text screen (80 x 25). There is no graphics card: nothing but this memory is looked at. */
export function textScreen(ram: GuestRam): TextRow[] {
  return Array.from({ length: ROWS }, (_, row) => {
    const cells = ram.slice(TEXT_GPA + row * COLUMNS * 2, COLUMNS * 2);
    const attributes = Uint8Array.from({ length: COLUMNS }, (_, column) => cells[2 * column + 1] ?? 0);
    const text = Array.from({ length: COLUMNS }, (_, column) => CHARACTERS[cells[2 * column] ?? 0] ?? ' ').join('');
    return { text, attributes };
  });
}
