/**
 * The one error class of the package. `code` is stable and meant for programs; the message is meant for people and says
 * what is wrong, where (file, line, field) and what to do about it.
 *
 * Codes of the options and the command line:
 * - `ERR_UNKNOWN_OPTION`: a key that does not exist, with the nearest one that does; or one of a later version
 * - `ERR_INVALID_OPTION`: a value of the wrong type or outside its range, or two options that exclude each other
 * - `ERR_CONFIG_READ`: the configuration file is missing, unreadable or neither JSON nor YAML
 * - `ERR_USAGE`: wrong arguments on the command line
 */
export class TunesmithError extends Error {
  readonly code: string

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'TunesmithError'
    this.code = code
  }
}
