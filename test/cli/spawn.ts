import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { run } from '../../lib/cli/run.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
// By its path: the tests run the command line in other folders, where the name means nothing.
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href

export interface Finished {
  code: number | null
  stdout: string
  stderr: string
}

export interface SpawnOptions {
  cwd?: string
  env?: Record<string, string>
  input?: string
  /** Leaves stdin open after `input`. */
  open?: boolean
  /** Called with all of stdout so far; may send a signal. */
  onOutput?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void
}

/** Runs the command line in this process: what it prints and returns, without what only a process shows. */
export async function tunesmithHere(args: string[]): Promise<Finished> {
  let stdout = ''
  let stderr = ''
  const code = await run(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
  })
  return { code, stdout, stderr }
}

/** Runs the command line from its sources in a process of its own, without a terminal. */
export function tunesmith(args: string[], options: SpawnOptions = {}): Promise<Finished> {
  const child = spawn(process.execPath, ['--import', tsx, `${root}lib/cli/main.ts`, ...args], {
    cwd: options.cwd ?? root,
    env: { ...process.env, TUNESMITH_DEBUG: '', ...options.env },
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    options.onOutput?.(stdout, (signal) => child.kill(signal))
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  if (options.open) child.stdin.write(options.input ?? '')
  else child.stdin.end(options.input ?? '')
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}
