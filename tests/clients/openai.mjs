// What OpenAI's own JavaScript client sees of a server: one line of JSON on standard output.
import OpenAI from 'openai'

const [url, model, elsewhere] = process.argv.slice(2)
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 })
const messages = [{ role: 'user', content: 'Why is the sky blue?' }]
const cold = { model, messages, temperature: 0, seed: 42, max_tokens: 8 }
const weather = {
  name: 'get_weather',
  description: 'Tells the weather',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string', enum: ['Paris', 'Rome'] } },
    required: ['city'],
  },
}

const person = {
  name: 'person',
  strict: true,
  schema: {
    type: 'object',
    properties: { kind: { const: 'person' }, grown: { type: 'boolean' } },
    required: ['kind', 'grown'],
    additionalProperties: false,
  },
}

async function collect(events) {
  const found = []
  for await (const event of events) found.push(event)
  return found
}

async function failure(work) {
  try {
    await work()
  } catch (error) {
    return { class: error.constructor.name, status: error.status, param: error.param, code: error.code }
  }
  return 'no error'
}

const seen = {}
const whole = await client.chat.completions.create(cold)
seen.whole = [whole.choices[0].message.content, whole.usage.completion_tokens]
const chunks = await collect(
  await client.chat.completions.create({ ...cold, stream: true, stream_options: { include_usage: true } }),
)
seen.streamed = [
  chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''),
  chunks.at(-1).usage.completion_tokens,
]

const helper = client.chat.completions.stream({ ...cold, stop: [' '] })
seen.helper = [await helper.finalContent(), (await helper.finalChatCompletion()).choices[0].finish_reason]

const format = { type: 'json_schema', json_schema: person }
const filled = await client.chat.completions.parse({ ...cold, max_tokens: 64, response_format: format })
seen.parsed = filled.choices[0].message.parsed

async function run(stream) {
  const cities = []
  const runner = client.chat.completions.runTools({
    model: 'agent',
    messages: [{ role: 'user', content: 'Weather in Paris?' }],
    max_tokens: 64,
    stream,
    tools: [
      {
        type: 'function',
        function: {
          ...weather,
          parse: JSON.parse,
          function: ({ city }) => {
            cities.push(city)
            return `22 degrees in ${city}`
          },
        },
      },
    ],
  })
  const said = await runner.finalContent()
  return [runner.messages.map((message) => message.role), cities, said]
}
seen.ran = [await run(false), await run(true)]

const response = await client.responses.create({ model, input: 'Why is the sky blue?', max_output_tokens: 8 })
seen.response = [response.status, response.output_text]
const events = await collect(
  client.responses.stream({ model, input: 'Why is the sky blue?', temperature: 0, max_output_tokens: 8 }),
)
seen.events = [events[0].type, events.at(-1).type]
const more = await client.responses.create({
  model,
  input: 'And at night?',
  previous_response_id: response.id,
  max_output_tokens: 8,
})
seen.more = more.output_text
const inForm = { model, input: 'Bob', temperature: 0, max_output_tokens: 64 }
seen.form = (
  await client.responses.parse({ ...inForm, text: { format: { type: 'json_schema', ...person } } })
).output_parsed
const called = await client.responses.create({
  model: 'agent',
  input: 'Weather in Paris?',
  max_output_tokens: 64,
  tools: [{ type: 'function', strict: false, ...weather }],
})
seen.called = called.output.filter((item) => item.type === 'function_call').map((item) => item.arguments)

const text = { model, prompt: 'Once', temperature: 0, seed: 42, max_tokens: 8 }
seen.text = (await client.completions.create(text)).choices[0].text
seen.pieces = (await collect(await client.completions.create({ ...text, stream: true })))
  .map((chunk) => chunk.choices[0].text)
  .join('')
const packed = await client.embeddings.create({ model: 'tinybert', input: ['good sky', 'blue'] })
const plain = await client.embeddings.create({ model: 'tinybert', input: ['good sky', 'blue'], encoding_format: 'float' })
seen.vectors = [packed, plain].map((found) => found.data.map((one) => Array.from(one.embedding)))

seen.models = (await client.models.list()).data.map((found) => found.id)
seen.model = (await client.models.retrieve(model)).id
seen.missing = await failure(() => client.chat.completions.create({ ...cold, model: 'nope' }))
seen.wrong = await failure(() => client.chat.completions.create({ ...cold, stream: true, temperature: -1 }))
seen.limited = await failure(() => client.chat.completions.create({ ...cold, model: elsewhere }))
seen.unable = await failure(() => client.embeddings.create({ model, input: 'Hi' }))

async function leave() {
  const stream = await client.chat.completions.create({ ...cold, stream: true, max_tokens: 500 })
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break
  return stream.controller.signal.aborted
}
seen.left = await leave()
console.log(JSON.stringify(seen))
