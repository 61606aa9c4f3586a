import type binaryen from 'binaryen';

/** Functions of Binaryen's JavaScript build that its type declarations leave out: changes to nodes that were already placed. */
interface Mutators {
  _BinaryenBlockAppendChild(block: number, child: number): number;
  _BinaryenIfSetCondition(node: number, condition: number): void;
  _BinaryenLoadSetOffset(node: number, offset: number): void;
  _BinaryenStoreSetOffset(node: number, offset: number): void;
}
const mutators = (b: typeof binaryen): Mutators => b as unknown as Mutators;

/** Appends to a block. */
export function appendChild(b: typeof binaryen, block: binaryen.ExpressionRef, child: binaryen.ExpressionRef): void {
  mutators(b)._BinaryenBlockAppendChild(block, child);
}
/** Replaces the condition of an `if`. */
export function setCondition(b: typeof binaryen, node: binaryen.ExpressionRef, condition: binaryen.ExpressionRef): void {
  mutators(b)._BinaryenIfSetCondition(node, condition);
}
/** Sets the immediate offset of a load or store. */
export function setMemoryOffset(b: typeof binaryen, node: binaryen.ExpressionRef, offset: number): void {
  if (b.getExpressionId(node) === b.LoadId) mutators(b)._BinaryenLoadSetOffset(node, offset);
  else mutators(b)._BinaryenStoreSetOffset(node, offset);
}
