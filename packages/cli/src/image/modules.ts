/** Text of a kernel module's `.modinfo`: `depends=a,b`. */
function dependencies(module: Uint8Array): string[] {
  const found = /\0depends=([^\0]*)\0/.exec(Buffer.from(module.buffer, module.byteOffset, module.byteLength).toString('latin1'))?.[1] ?? '';
  return found.split(',').filter((name) => name !== '');
}

/** Names with `-` and `_` are the same to the kernel. */
const nameOf = (path: string): string => (path.split('/').at(-1) ?? '').replace(/\.ko$/, '').replaceAll('-', '_');

/**
 * Paths of the wanted modules and of all they need, each after those that it needs.
 *
 * @param modules path -> contents
 */
export function loadOrder(modules: ReadonlyMap<string, Uint8Array>, wanted: readonly string[]): string[] {
  const byName = new Map([...modules.keys()].map((path) => [nameOf(path), path]));
  const order: string[] = [];
  const visited = new Set<string>();
  const visit = (name: string): void => {
    const path = byName.get(name.replaceAll('-', '_'));
    if (path === undefined || visited.has(path)) return;
    visited.add(path);
    for (const needed of dependencies(modules.get(path) ?? new Uint8Array(0))) visit(needed);
    order.push(path);
  };
  for (const name of wanted) visit(name);
  return order;
}
