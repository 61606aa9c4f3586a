/**
 * The invariants of the shadow structure, checked by walking all of it. For tests and for runs that ask for it.
 */
import { MODE_NX } from './api.ts';
import { entryGpa, type GuestWalk } from './guest-walk.ts';
import { ACC_U, ACC_W, ACC_X, accessOf, PTE_A, PTE_D, PTE_P, PTE_PS, PTE_W, ROLE_DIRECT, ROLE_NX, ROLE_SMEP, ROLE_USER } from './paging.ts';
import { roleAccess } from './shadow-fill.ts';
import type { ShadowPages } from './shadow-pages.ts';

/** @throws Error naming the broken invariant and the shadow entry. */
export function checkShadow(pages: ShadowPages, walk: GuestWalk, gpaToHpa: (gpa: number) => number): void {
  const { pool } = pages;
  const listed = new Uint8Array(pool.frames * 512);
  const fail = (what: string, sidx: number): never => {
    throw new Error(`shadow invariant broken: ${what} (frame ${sidx >>> 9} role ${(pool.role[sidx >>> 9] ?? 0).toString(16)} entry ${sidx & 511})`);
  };
  for (let head = 0; head < pool.heads.length; head++) {
    let prev = ~head;
    for (let sidx = pool.heads[head] as number; sidx !== 0; prev = sidx, sidx = pool.next[sidx] as number) {
      if (pool.prev[sidx] !== prev) fail('list links disagree', sidx);
      if (listed[sidx] !== 0) fail('entry is in two lists', sidx);
      listed[sidx] = 1;
      if (expectedHead(pages, sidx) !== head) fail('entry is in the wrong list', sidx);
    }
  }
  const tables = new Uint16Array(pages.ramFrames);
  let free = 0;
  for (let frame = 0; frame < pool.frames; frame++) {
    const role = pool.role[frame] as number;
    let present = 0;
    for (let sidx = frame * 512; sidx < frame * 512 + 512; sidx++) {
      if (pool.low(sidx) === 0) continue;
      present++;
      if (role === 0) fail('entry in a free frame', sidx);
      if (listed[sidx] !== 1) fail('present entry is in no list', sidx);
      checkEntry(pages, walk, gpaToHpa, sidx, fail);
    }
    if (present !== pool.present[frame]) fail(`present count ${pool.present[frame]} but ${present} entries`, frame * 512);
    if (role === 0 && frame !== 0) free++;
    if (role !== 0 && (role & ROLE_DIRECT) === 0) tables[pool.key[frame] as number] = (tables[pool.key[frame] as number] as number) + 1;
    if ((pool.currentUses[frame] as number) > (pool.slotUses[frame] as number)) fail('root in use but in no slot', frame * 512);
    if (role === 0 && pool.slotUses[frame] !== 0) fail('freed root still in a slot', frame * 512);
  }
  if (free !== pool.free) throw new Error(`shadow invariant broken: ${free} free frames, ${pool.free} counted`);
  for (let ram = 0; ram < pages.ramFrames; ram++) {
    if (tables[ram] !== pages.tables[ram])
      throw new Error(`shadow invariant broken: RAM frame ${ram} has ${tables[ram]} shadow pages, ${pages.tables[ram]} counted`);
  }
  for (let block = 0; block < pages.blockTracked.length; block++) {
    const tracked = pages.tables.subarray(block * 512, block * 512 + 512).reduce((sum, count) => sum + (count !== 0 ? 1 : 0), 0);
    if (tracked !== pages.blockTracked[block])
      throw new Error(`shadow invariant broken: block ${block} has ${tracked} tracked frames, ${pages.blockTracked[block]} counted`);
    if (tracked !== 0 && pool.heads[pool.blockHeads + block] !== 0) throw new Error(`shadow invariant broken: large leaf over tracked block ${block}`);
  }
}

function expectedHead(pages: ShadowPages, sidx: number): number {
  const { pool } = pages;
  const low = pool.low(sidx);
  const level = pool.level(sidx >>> 9);
  if (!pages.isLeaf(low, level)) return pool.parentHeads + pages.childOf(low);
  const ram = pages.ramFrameOf(low);
  return level === 1 ? ram : pool.blockHeads + (ram >>> 9);
}

function checkEntry(pages: ShadowPages, walk: GuestWalk, gpaToHpa: (gpa: number) => number, sidx: number, fail: (what: string, sidx: number) => never): void {
  const { pool } = pages;
  const role = pool.role[sidx >>> 9] as number;
  const level = pool.level(sidx >>> 9);
  const low = pool.low(sidx);
  const high = pool.words[pool.word0 + sidx * 2 + 1] as number;
  const leaf = pages.isLeaf(low, level);
  if (leaf) {
    const ram = pages.ramFrameOf(low);
    if (ram < 0 || ram >= pages.ramFrames) fail('leaf outside RAM', sidx);
    if ((low & PTE_W) !== 0 && pages.tables[ram] !== 0) fail('writable leaf of a page table', sidx);
  } else {
    const child = pages.childOf(low);
    if (child <= 0 || child >= pool.frames || pool.role[child] === 0) fail('entry leads to a free frame', sidx);
    if (pool.level(child) !== level - 1) fail('child has the wrong level', sidx);
  }
  let rights = roleAccess(role);
  if ((role & ROLE_DIRECT) === 0) {
    const word = (pages.ramBase + (pool.key[sidx >>> 9] as number)) * 1024 + (sidx & 511) * 2;
    const guestLow = pool.words[word] as number;
    const guestHigh = pool.words[word + 1] as number;
    if ((guestLow & (PTE_P | PTE_A)) !== (PTE_P | PTE_A)) fail('shadow entry but the guest has none', sidx);
    if (walk.reserved(guestLow, guestHigh, level, (role & ROLE_NX) !== 0 ? MODE_NX : 0) !== 0) fail('guest entry has reserved bits', sidx);
    rights &= accessOf(guestLow, guestHigh);
    const guestLeaf = level === 1 || (guestLow & PTE_PS) !== 0;
    if (guestLeaf && (guestLow & PTE_D) === 0) rights &= ~ACC_W;
    if (leaf && !guestLeaf) fail('shadow leaf for a guest table', sidx);
    if (leaf) {
      const gpa = entryGpa(guestLow, guestHigh);
      if (gpaToHpa(level === 1 ? gpa : gpa - (gpa & 0x1f_ffff)) !== (pages.ramBase + pages.ramFrameOf(low)) * 4096)
        fail('leaf maps another page than the guest', sidx);
    } else {
      const childRole = pool.role[pages.childOf(low)] as number;
      if (((childRole & ROLE_DIRECT) !== 0) !== guestLeaf) fail('child of the wrong kind', sidx);
      // The dirty bit may have been set through another mapping of the same large entry since: then the child only lacks ACC_W still.
      const difference = roleAccess(childRole) ^ rights;
      if (difference !== 0 && !(guestLeaf && difference === ACC_W && (rights & ACC_W) !== 0)) fail('child has other rights than the walk', sidx);
      if (!guestLeaf && gpaToHpa(entryGpa(guestLow, guestHigh)) !== (pages.ramBase + (pool.key[pages.childOf(low)] as number)) * 4096)
        fail('child of another guest table', sidx);
    }
  }
  if ((role & ROLE_USER) !== 0 && (rights & ACC_U) === 0) fail('supervisor page in a user shadow', sidx);
  if (!leaf) return;
  if ((low & PTE_W) !== 0 && (rights & ACC_W) === 0) fail('writable leaf without the right', sidx);
  if (high >= 0 && ((rights & ACC_X) === 0 || ((role & ROLE_SMEP) !== 0 && (rights & ACC_U) !== 0))) fail('executable leaf without the right', sidx);
}
