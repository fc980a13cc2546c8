/** Names of repositories on the Hugging Face hub, as the options write them. */

export type RepoType = 'model' | 'dataset'

export interface HubRef {
  type: RepoType
  /** `org/name` */
  id: string
  /** Branch, tag or commit; 'main' where none is written. */
  revision: string
  /** File or glob inside the repository; undefined for the repository as a whole. */
  path: string | undefined
}

const NAME = '[A-Za-z0-9][\\w.-]*'
/** Revisions with slashes are known by their beginning; in others a slash is written %2F. */
const REVISION = '(?:@(refs/(?:convert|pr)/[^/]+|[^/@]+))?'
const PLAIN = new RegExp(`^(${NAME}/${NAME})${REVISION}$`)
const URI = new RegExp(`^hf://(models/|datasets/)?(${NAME}/${NAME})${REVISION}(?:/(.+))?$`)

/** Whether `text` can be nothing but a hub name. */
export function isHubUri(text: string): boolean {
  return text.startsWith('hf://')
}

/**
 * The repository that `text` names: `org/name`, `org/name@revision`, or `hf://[datasets/]org/name[@revision][/path]`. A
 * plain name is of the type `expected`. Undefined where it names none, or one of another type.
 */
export function parseHubRef(text: string, expected: RepoType): HubRef | undefined {
  const plain = PLAIN.exec(text)
  if (plain) return { type: expected, id: plain[1]!, revision: revisionOf(plain[2]), path: undefined }
  const uri = URI.exec(text)
  if (!uri) return undefined
  const type: RepoType = uri[1] === 'datasets/' ? 'dataset' : 'model'
  return type === expected ? { type, id: uri[2]!, revision: revisionOf(uri[3]), path: uri[4] } : undefined
}

function revisionOf(text: string | undefined): string {
  if (text === undefined) return 'main'
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** For messages: `dataset org/name`, with the revision where it is not main. */
export function refName({ type, id, revision }: HubRef): string {
  return `${type} ${id}${revision === 'main' ? '' : `@${revision}`}`
}
