/** Chat templates that come with the package, as Jinja sources that are exported with the checkpoint. */

export type BuiltinName = 'chatml' | 'plain'

/**
 * OpenAI's ChatML. Tools are listed in the system turn and called as JSON in `<tool_call>` tags, as the Hermes and Qwen
 * models do.
 */
const CHATML = `{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- 'You may call these functions. Answer with one JSON object per call, {"name": ..., "arguments": {...}}, each in <tool_call></tool_call> tags.\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if message.content or not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}
{{- call.function.arguments }}
{%- else %}
{{- call.function.arguments | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}`

/**
 * Written dialogue, for base models without chat tokens: nothing in it is foreign to a model that has read plain text.
 * Names stand on their own line, because a prompt that ended in "Assistant: " would split the space from the word it
 * belongs to in most vocabularies. Assistant turns end in the tokenizer's eos.
 */
const PLAIN = `{%- if tools %}
{{- 'Tools:\\n' }}
{%- for tool in tools %}
{{- (tool | tojson) + '\\n' }}
{%- endfor %}
{{- '\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' or message.role == 'developer' %}
{{- message.content | trim + '\\n\\n' }}
{%- elif message.role == 'user' %}
{{- 'User:\\n' + message.content | trim + '\\n\\n' }}
{%- elif message.role == 'tool' %}
{{- 'Tool:\\n' + message.content | trim + '\\n\\n' }}
{%- elif message.role == 'assistant' %}
{{- 'Assistant:\\n' }}
{%- if message.content is string %}
{{- message.content | trim }}
{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if message.content or not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- 'Call: ' + (call.function | tojson) }}
{%- endfor %}
{%- endif %}
{{- eos_token + '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:\\n' }}
{%- endif %}`

const SOURCES: Record<BuiltinName, string> = { chatml: CHATML, plain: PLAIN }

export const BUILTIN_NAMES = Object.keys(SOURCES) as BuiltinName[]

export function isBuiltin(name: string): name is BuiltinName {
  return Object.hasOwn(SOURCES, name)
}

/** The source of a built-in template. `bos`: the tokenizer starts every text with bos, so the template does as well. */
export function builtinTemplate(name: BuiltinName, bos: boolean): string {
  return bos ? `{{- bos_token }}\n${SOURCES[name]}` : SOURCES[name]
}
