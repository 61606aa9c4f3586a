import { access } from 'node:fs/promises';
import { nearest } from '@pvm/pvm';
import { UsageError } from '../errors.ts';
import { cacheFolder, type StoredImage, storedImage } from './cache.ts';
import { buildDebian } from './debian.ts';
import { Progress } from './progress.ts';

interface ImageRecipe {
  readonly title: string;
  /** @throws UsageError */
  build(progress: Progress, mirror?: string): Promise<void>;
}

/** Images that can be had by name. */
export const IMAGES: Readonly<Record<string, ImageRecipe>> = {
  debian: { title: 'a small Debian in memory with a shell: kernel linux-image-cloud-amd64, bash, coreutils, util-linux, dpkg', build: buildDebian },
};

/** @throws UsageError */
function recipe(name: string): ImageRecipe {
  const found = IMAGES[name];
  if (found === undefined) throw new UsageError(`no image is called "${name}"; did you mean ${nearest(name, Object.keys(IMAGES))}? (pvm image list)`);
  return found;
}

/** The image, fetched and built where it is not stored, or anew. @throws UsageError */
export async function getImage(
  name: string,
  { fresh = false, mirror }: { readonly fresh?: boolean; readonly mirror?: string | undefined } = {},
): Promise<StoredImage> {
  const { build } = recipe(name);
  const stored = fresh ? undefined : await storedImage(name);
  if (stored !== undefined) return stored;
  const progress = new Progress();
  try {
    await build(progress, mirror);
  } catch (e) {
    throw cacheProblem(e) ?? e;
  } finally {
    progress.done();
  }
  const built = await storedImage(name);
  if (built === undefined) throw new Error(`the image ${name} is not where it was put`);
  return built;
}

/** What is wrong with the folder that images are kept in. */
function cacheProblem(e: unknown): UsageError | undefined {
  const known: Readonly<Record<string, string>> = {
    ENOSPC: 'there is no room left; an image and its packages take about 200 MB',
    EDQUOT: 'your quota is used up; an image and its packages take about 200 MB',
    EACCES: 'it cannot be written to',
    EROFS: 'it cannot be written to',
    ENOTDIR: 'a part of this path is not a folder',
  };
  const what = e instanceof Error && 'code' in e ? known[String(e.code)] : undefined;
  return what === undefined ? undefined : new UsageError(`${cacheFolder()}: ${what} (XDG_CACHE_HOME chooses another place)`);
}

/** Whether a word that is to be run is an image: it is called so, and no file is. */
export async function isImage(word: string | undefined): Promise<boolean> {
  if (word === undefined || IMAGES[word] === undefined) return false;
  return access(word).then(
    () => false,
    () => true,
  );
}
