import type { Argv, CommandModule } from 'yargs';
import { UsageError } from '../errors.ts';
import { cacheFolder, removeImage, storedImage, storedImages } from '../image/cache.ts';
import { getImage, IMAGES } from '../image/images.ts';

interface ImageArgs {
  readonly action: 'list' | 'get' | 'rm';
  readonly name: string | undefined;
  readonly fresh: boolean;
  readonly mirror: string | undefined;
}

/** Options of `image`, for yargs. */
export const IMAGE_OPTIONS = {
  fresh: { type: 'boolean', default: false, describe: 'get: build it anew, with packages as they are today' },
  mirror: { type: 'string', requiresArg: true, describe: "get: fetch the packages from this URL, a copy of Debian's archive, instead of through apt" },
} as const;

const size = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;

async function list(): Promise<void> {
  const names = [...new Set([...Object.keys(IMAGES), ...(await storedImages())])].sort();
  for (const name of names) {
    const stored = await storedImage(name);
    const what = stored === undefined ? `not fetched; ${IMAGES[name]?.title ?? ''}` : `${size(stored.bytes)}; ${stored.title}`;
    process.stdout.write(`${name.padEnd(12)}${what}\n`);
  }
}

/** `pvm image list|get|rm`. */
export const imageCommand: CommandModule<object, ImageArgs> = {
  command: 'image <action> [name]',
  describe: 'Fetch, list and remove systems that pvm run NAME boots: pvm image list|get|rm [NAME]',
  builder: (y) =>
    y
      .usage(
        `pvm image list
pvm image get NAME [--fresh] [--mirror URL]
pvm image rm NAME

An image is a kernel and a RAM disk, made of a distribution's packages without root. On a Debian host they come through apt, elsewhere by HTTPS, checked against SHA-256 sums that this program has. They are kept in ${cacheFolder()}.`,
      )
      .positional('action', { choices: ['list', 'get', 'rm'] as const, demandOption: true })
      .positional('name', { type: 'string' })
      .options(IMAGE_OPTIONS)
      .example('pvm run debian', 'Boot it; fetch it first where that is needed') as unknown as Argv<ImageArgs>,
  handler: async ({ action, name, fresh, mirror }) => {
    if (mirror !== undefined && !/^https?:\/\/./.test(mirror)) throw new UsageError(`--mirror ${mirror}: expected a URL such as https://deb.debian.org/debian`);
    if (action === 'list') return list();
    if (name === undefined) throw new UsageError(`image ${action}: name an image (pvm image list shows them)`);
    if (action === 'get') {
      const image = await getImage(name, { fresh, mirror: mirror?.replace(/\/+$/, '') });
      process.stdout.write(`${image.kernel}\n${image.initrd}\n`);
    } else if (!(await removeImage(name))) throw new UsageError(`image rm ${name}: it is not stored`);
  },
};
