// Loads a GGUF file in llama.cpp and answers questions about it, one JSON object per line.
// The second argument is the length of the context [256].
// { text, special? } -> token ids; { tokens } -> after each of them: the most likely next token and the probabilities.
import { createInterface } from 'node:readline'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
try {
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    progressLogs: false,
    logLevel: process.env.LLAMA_LOG ? LlamaLogLevel.error : LlamaLogLevel.disabled,
    maxThreads: 2,
  })
  const model = await llama.loadModel({ modelPath: process.argv[2] })
  const { bos, eos, eot } = model.tokens
  const { metadata } = model.fileInfo
  const context = await model.createContext({
    contextSize: Number(process.argv[3] ?? 256),
    flashAttention: false,
    experimentalKvCacheKeyType: 'F32',
    experimentalKvCacheValueType: 'F32',
  })
  say({ bos, eos, eot, context: model.trainContextSize, template: metadata.tokenizer.chat_template ?? null })
  const sequence = context.getSequence()
  for await (const line of createInterface({ input: process.stdin })) {
    const { text, special = false, tokens } = JSON.parse(line)
    if (text !== undefined) {
      say(model.tokenize(text, special))
      continue
    }
    await sequence.clearHistory()
    const asked = tokens.map((token) => [token, { generateNext: { probabilities: true } }])
    const answers = await sequence.controlledEvaluate(asked)
    say(
      answers.map(({ next }) => {
        const [best] = next.probabilities.keys()
        return { best, probabilities: Object.fromEntries(next.probabilities) }
      }),
    )
  }
  await llama.dispose()
} catch (error) {
  say({ error: String(error?.stack ?? error) })
  process.exitCode = 1
}
