/** Colours of the series: Tableau 10, which stay apart on light and dark ground, then shades that are not among them. */
const PALETTE = [
  '#4e79a7',
  '#f28e2c',
  '#e15759',
  '#76b7b2',
  '#59a14f',
  '#edc949',
  '#af7aa1',
  '#ff9da7',
  '#9c755f',
  '#bab0ab',
  '#2f9fd0',
  '#8cd17d',
  '#d37295',
  '#b6992d',
  '#499894',
  '#d4a6c8',
  '#6f4e9b',
  '#c26a2c',
  '#3b7d3b',
  '#7f8fd9',
];
/** The guest's own time. */
export const GUEST_COLOUR = '#9aa5b1';

/** What is too little to be told apart. */
export const OTHER = 'other';
const OTHER_COLOUR = '#6b7078';

/** The same name has the same colour in every chart. */
export class Colours {
  private readonly of = new Map<string, string>();

  /** @param names most important first */
  constructor(names: readonly string[]) {
    names.forEach((name, i) => {
      this.of.set(name, PALETTE[i % PALETTE.length] ?? '#888');
    });
  }

  colour(name: string): string {
    return name === OTHER ? OTHER_COLOUR : (this.of.get(name) ?? OTHER_COLOUR);
  }
}

/** Colour of a custom property of the style sheet, which knows about light and dark. */
export function property(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
