/**
 * The one error class of the package. `code` is stable and meant for programs; the message is meant for people and says
 * what is wrong, where (file, line, field) and what to do about it.
 *
 * Options and command line
 * - `ERR_UNKNOWN_OPTION`: a key that does not exist, with the nearest one that does; or one of a later version
 * - `ERR_INVALID_OPTION`: a value of the wrong type or outside its range, or two options that exclude each other
 * - `ERR_CONFIG_READ`: the configuration file is missing, unreadable or neither JSON nor YAML
 * - `ERR_USAGE`: wrong arguments on the command line
 *
 * Data
 * - `ERR_DATA_NOT_FOUND`, `ERR_DATA_READ`: no such file, no match for a glob; a file that cannot be read
 * - `ERR_DATA_FORMAT`: a layout, an encoding or a kind of file that is not read, or rows that cannot be told apart
 * - `ERR_BAD_ROW`: a malformed row, with file, line and field
 * - `ERR_EMPTY_DATASET`: no row is left
 * - `ERR_TOO_LONG`: rows longer than `maxLength`, more than may be dropped
 * - `ERR_TRAIN_ON`: plain text rows without `trainOn: 'all'`
 * - `ERR_EVAL_SPLIT`: `data.evalFraction` leaves one side empty
 * - `ERR_NOTHING_SUPERVISED`, `ERR_EVERYTHING_SUPERVISED`: no token, or nearly every one, carries loss unasked
 * - `ERR_NO_SUPERVISED_TOKENS`: no token of one step carries loss
 *
 * Hugging Face hub
 * - `ERR_HUB_NOT_FOUND`, `ERR_HUB_ACCESS`: no such repository, revision or file; one that HF_TOKEN does not open
 * - `ERR_HUB_UNREACHABLE`: no network, and not in the cache
 * - `ERR_HUB_DOWNLOAD`: a server that fails, or a content that is not what the repository lists
 *
 * Chat template and tokenizer
 * - `ERR_TEMPLATE_NOT_FOUND`, `ERR_TEMPLATE`: no such template; one that does not parse or does not fit the tokenizer
 * - `ERR_HISTORY_REWRITE`: the template renders earlier turns differently, under `historyRewrite: 'error'`
 * - `ERR_TEMPLATE_DOCTOR`: a template that would train something else than inference asks for
 * - `ERR_STOP_TOKEN_UNTRAINED`: an assistant turn ends without a stop token
 * - `ERR_NO_EOS`: the plain template needs an eos token
 * - `ERR_TOKENIZER_NOT_FOUND`, `ERR_INVALID_TOKENIZER`: missing or unusable tokenizer files
 *
 * Checkpoint
 * - `ERR_MODEL_NOT_FOUND`, `ERR_WEIGHTS_NOT_FOUND`, `ERR_CHECKPOINT_INCOMPLETE`: no folder, no weights, a save cut short
 * - `ERR_INVALID_CONFIG`, `ERR_UNSUPPORTED_CONFIG`, `ERR_UNSUPPORTED_ARCHITECTURE`, `ERR_UNSUPPORTED_ROPE`: config.json
 * - `ERR_SAFETENSORS_HEADER`, `ERR_SAFETENSORS_INDEX`, `ERR_SAFETENSORS_READ`, `ERR_SAFETENSORS_TRUNCATED`,
 *   `ERR_SHARD_MISSING`, `ERR_PICKLE_CHECKPOINT`: the files of the weights
 * - `ERR_TENSOR_MISSING`, `ERR_TENSOR_SHAPE`, `ERR_TENSOR_DTYPE`: tensors that do not fit the config
 * - `ERR_INVALID_WEIGHTS`: values that are not finite, where they are to be quantised
 * - `ERR_VOCAB_TOO_SMALL`: a tokenizer larger than the embedding
 * - `ERR_ADAPTER_CONFIG`, `ERR_ADAPTER_BASE`: an adapter of another kind or model, or whose base is not found
 * - `ERR_OUTPUT_NOT_WRITABLE`, `ERR_OUTPUT_FULL`, `ERR_OUTPUT_IS_SOURCE`, `ERR_OUTPUT_FOREIGN`, `ERR_OUTPUT_BUSY`: the output
 *   folder; `ERR_OUTPUT_EXISTS`: an output file that would be replaced
 *
 * Export
 * - `ERR_GGUF_UNSUPPORTED`, `ERR_GGUF_TOKENIZER`: a model or tokenizer that llama.cpp would treat differently
 * - `ERR_GGUF_RANGE`, `ERR_INVALID_GGUF`: a weight that half precision cannot hold; a file that does not read back
 *
 * What trains
 * - `ERR_NO_SUCH_TENSOR`: a pattern that matches no tensor of the model
 * - `ERR_NOTHING_TRAINED`: everything is frozen
 *
 * Running
 * - `ERR_NON_FINITE_LOSS`, `ERR_NON_FINITE_GRADIENT`: the run has diverged; the step was not applied
 * - `ERR_INVALID_PROMPT`, `ERR_EMPTY_PROMPT`, `ERR_CONTEXT_FULL`: generation from something else than text or messages,
 *   without a prompt, or without room
 * - `ERR_NON_FINITE_LOGITS`: generation with weights that have diverged
 * - `ERR_BUSY`: a second run or completion on the same object
 * - `ERR_CANCELLED`, `ERR_CLOSED`: work on an engine that was cancelled or closed
 * - `ERR_ADDON_NOT_LOADED`, `ERR_BACKEND_UNAVAILABLE`, `ERR_UNSUPPORTED_DTYPE`: what the machine or the build lacks
 * - `ERR_NO_DEVICE`, `ERR_DEVICE`: no NVIDIA GPU that can be used, and why; a GPU that failed
 * - `ERR_OUT_OF_MEMORY`: before the first step, with numbers
 *
 * Faults of this package, worth a report
 * - `ERR_INTERNAL`, `ERR_NATIVE`, `ERR_INVALID_ARGUMENT`, `ERR_INVALID_BATCH`, `ERR_INVALID_SPEC`, `ERR_NOT_TRAINING`,
 *   `ERR_NO_CACHE`, `ERR_PARAMETER_MISMATCH`, `ERR_UNKNOWN_PARAMETER`
 */
export class TunesmithError extends Error {
  readonly code: string

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'TunesmithError'
    this.code = code
  }
}

/** Something worth knowing that stops nothing. `code` is stable and starts with `WARN_`. */
export interface Warning {
  code: string
  message: string
}
