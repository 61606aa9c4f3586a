// Profile of indirect branches, for the compiler: which targets a site has taken.
import { PROFILE_BASE, PROFILE_COUNT, PROFILE_ENTRIES, PROFILE_ENTRY_SIZE, PROFILE_LIST, PROFILE_SITE, PROFILE_TARGETS } from "../src/layout";

/** The indirect jump or call at `site` goes to `target`. A site that shares its entry with another takes it over. */
export function profileTarget(site: u64, target: u64): void {
  const low = <u32>site;
  const entry = <u32>PROFILE_BASE + ((low ^ low >> 10) & (PROFILE_ENTRIES - 1)) * <u32>PROFILE_ENTRY_SIZE;
  if (load<u64>(entry, PROFILE_SITE) != site) {
    store<u64>(entry, site, PROFILE_SITE);
    store<u32>(entry, 0, PROFILE_COUNT);
  }
  const count = load<u32>(entry, PROFILE_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    if (load<u64>(entry + (i << 3), PROFILE_LIST) != target) continue;
    // What is taken often comes to the front, so that the search stays short.
    const ahead = entry + (i >> 1 << 3);
    store<u64>(entry + (i << 3), load<u64>(ahead, PROFILE_LIST), PROFILE_LIST);
    store<u64>(ahead, target, PROFILE_LIST);
    return;
  }
  if (count == PROFILE_TARGETS) return;
  store<u64>(entry + (count << 3), target, PROFILE_LIST);
  store<u32>(entry, count + 1, PROFILE_COUNT);
}
