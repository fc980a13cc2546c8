/** The run's record on disk: every event as one line of JSON, appended as it happens. */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { TunesmithError } from '../errors.ts'

export class MetricsFile {
  readonly path: string
  readonly #handle: FileHandle

  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  /** @throws TunesmithError `ERR_OUTPUT_NOT_WRITABLE` */
  static async open(folder: string): Promise<MetricsFile> {
    const path = join(folder, 'metrics.jsonl')
    try {
      return new MetricsFile(path, await open(path, 'a'))
    } catch (cause) {
      throw new TunesmithError('ERR_OUTPUT_NOT_WRITABLE', `${path} cannot be written: ${(cause as Error).message}`, {
        cause,
      })
    }
  }

  async append(event: string, payload: object): Promise<void> {
    await this.#handle.appendFile(`${JSON.stringify({ event, time: new Date().toISOString(), ...payload })}\n`)
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }
}
