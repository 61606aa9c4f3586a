/** The shortest list of steps found that still fails, by leaving out ever smaller parts (delta debugging). `fails` must be repeatable. */
export async function shrink(steps: readonly number[], fails: (steps: readonly number[]) => Promise<boolean>, maxRuns: number): Promise<readonly number[]> {
  let best = steps;
  let runs = 0;
  for (let part = Math.ceil(best.length / 2); part >= 1; ) {
    let wasCut = false;
    for (let at = 0; at < best.length && runs < maxRuns; ) {
      const shorter = [...best.slice(0, at), ...best.slice(at + part)];
      runs++;
      if (shorter.length > 0 && (await fails(shorter))) {
        best = shorter;
        wasCut = true;
      } else at += part;
    }
    if (runs >= maxRuns || (part === 1 && !wasCut)) return best;
    if (!wasCut || part > best.length) part = Math.max(1, Math.min(Math.floor(part / 2), best.length));
  }
  return best;
}
