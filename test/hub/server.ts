/** A small server that speaks the hub's routes, as @huggingface/hub asks them, with the faults that a real one can have. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface FakeFile {
  content: Buffer
  /** Kept as a large file: its hash is SHA-256, and it is served from elsewhere. */
  lfs?: boolean
}

export interface FakeRepo {
  commit: string
  files: Record<string, FakeFile | string>
  /** Only this token opens it. */
  token?: string
}

export interface FakeHub {
  endpoint: string
  /** By route, e.g. `datasets/org/name`. */
  repos: Record<string, FakeRepo>
  /** `METHOD path range`, in order. */
  requests: string[]
  /** Headers of the last request of each path. */
  headers: Record<string, IncomingMessage['headers']>
  /** Faults: after how many bytes to break off the next contents of large files; how often to answer 503, to which paths. */
  drops: number[]
  busy: { times: number; only: RegExp }
  /** Changes contents as they are served. */
  tamper: (content: Buffer) => Buffer
  close: () => Promise<void>
}

function fileOf(file: FakeFile | string): FakeFile {
  return typeof file === 'string' ? { content: Buffer.from(file) } : file
}

function gitOid(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
}

function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}

export async function fakeHub(repos: Record<string, FakeRepo> = {}): Promise<FakeHub> {
  const server = createServer((request, response) => {
    answer(hub, request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const hub: FakeHub = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    repos,
    requests: [],
    headers: {},
    drops: [],
    busy: { times: 0, only: /./ },
    tamper: (content) => content,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return hub
}

function answer(hub: FakeHub, request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url!, hub.endpoint)
  const path = decodeURIComponent(url.pathname)
  hub.requests.push(`${request.method} ${path} ${request.headers.range ?? ''}`.trim())
  hub.headers[path] = request.headers
  const fail = (status: number, error: string, code?: string) => {
    response.writeHead(status, { 'content-type': 'application/json', ...(code && { 'x-error-code': code }) })
    response.end(JSON.stringify({ error }))
  }
  if (hub.busy.times > 0 && hub.busy.only.test(path) && !request.headers.range?.endsWith('=0-0')) {
    hub.busy.times--
    return fail(503, 'busy')
  }
  const cdn = /^\/cdn\/(.+)$/.exec(path)
  if (cdn) {
    for (const repo of Object.values(hub.repos)) {
      for (const file of Object.values(repo.files)) {
        if (sha256(fileOf(file).content) === cdn[1]) return serve(hub, request, response, fileOf(file).content)
      }
    }
    return fail(404, 'gone')
  }
  const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path)
  const resolved = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path)
  const key = api ? `${api[1]}/${api[2]}` : `${resolved?.[1] ? 'datasets' : 'models'}/${resolved?.[2]}`
  const repo = hub.repos[key]
  const token = request.headers.authorization?.replace('Bearer ', '')
  // The hub does not tell a stranger whether a repository exists.
  if (!repo || (repo.token && repo.token !== token)) return fail(401, 'Invalid username or password.')
  const revision = api?.[4] ?? resolved?.[3]
  if (revision !== 'main' && revision !== repo.commit)
    return fail(404, `Invalid rev id: ${revision}`, 'RevisionNotFound')
  const json = (value: unknown, headers = {}) => {
    response.writeHead(200, { 'content-type': 'application/json', ...headers })
    response.end(JSON.stringify(value))
  }
  if (api?.[3] === 'revision') return json({ _id: '1', id: api[2], sha: repo.commit, lastModified: '2026-01-01' })
  if (api) {
    // Two entries a page, as the hub pages a thousand.
    const entries = Object.entries(repo.files).map(([name, file]) => {
      const { content, lfs } = fileOf(file)
      const oid = gitOid(lfs ? Buffer.from('pointer') : content)
      const large = { oid: sha256(content), size: content.length, pointerSize: 130 }
      return { type: 'file', path: name, size: content.length, oid, ...(lfs && { lfs: large }) }
    })
    const start = Number(url.searchParams.get('cursor') ?? 0)
    url.searchParams.set('cursor', String(start + 2))
    const link = start + 2 < entries.length ? { link: `<${url.href}>; rel="next"` } : {}
    return json([{ type: 'directory', path: 'data', size: 0, oid: '' }, ...entries.slice(start, start + 2)], link)
  }
  const file = repo.files[resolved![4]!]
  if (file === undefined) return fail(404, 'Entry not found', 'EntryNotFound')
  const { content, lfs } = fileOf(file)
  if (lfs) {
    response.writeHead(302, { location: `/cdn/${sha256(content)}`, 'x-linked-etag': `"${sha256(content)}"` })
    response.end()
    return
  }
  serve(hub, request, response, content)
}

function serve(hub: FakeHub, request: IncomingMessage, response: ServerResponse, original: Buffer): void {
  const content = hub.tamper(original)
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const start = range ? Number(range[1]) : 0
  const end = range?.[2] ? Math.min(Number(range[2]) + 1, content.length) : content.length
  const part = content.subarray(start, end)
  response.writeHead(range ? 206 : 200, {
    etag: `"${gitOid(content)}"`,
    'content-length': part.length,
    ...(range && { 'content-range': `bytes ${start}-${end - 1}/${content.length}` }),
  })
  // The probe of one byte always works: contents are what connections break in.
  if (hub.drops.length > 0 && part.length > 1 && request.url!.startsWith('/cdn/')) {
    response.flushHeaders()
    response.write(part.subarray(0, hub.drops.shift()), () => setTimeout(() => response.destroy(), 20))
    return
  }
  response.end(part)
}
