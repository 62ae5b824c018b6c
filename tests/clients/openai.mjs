// What OpenAI's own JavaScript client sees of a server: one line of JSON on standard output.
import OpenAI from 'openai'

const [url, model] = process.argv.slice(2)
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

let ran = 0
const runner = client.chat.completions.runTools({
  model: 'tools',
  messages: [{ role: 'user', content: 'Weather in Paris?' }],
  temperature: 0,
  max_tokens: 64,
  stream: true,
  // The client lets the model choose freely once the tool has run.
  tool_choice: { type: 'function', function: { name: 'get_weather' } },
  tools: [
    {
      type: 'function',
      function: {
        ...weather,
        parse: JSON.parse,
        function: ({ city }) => {
          ran += 1
          return `22 degrees in ${city}`
        },
      },
    },
  ],
})
await runner.done()
seen.roles = runner.messages.map((message) => message.role)
seen.ran = ran

const response = await client.responses.create({ model, input: 'Why is the sky blue?', max_output_tokens: 8 })
seen.response = [response.status, response.output_text]
const events = await collect(
  client.responses.stream({ model, input: 'Why is the sky blue?', temperature: 0, max_output_tokens: 8 }),
)
seen.events = [events[0].type, events.at(-1).type]

seen.models = (await client.models.list()).data.map((found) => found.id)
seen.model = (await client.models.retrieve(model)).id
seen.missing = await failure(() => client.chat.completions.create({ ...cold, model: 'nope' }))
seen.wrong = await failure(() => client.chat.completions.create({ ...cold, stream: true, temperature: -1 }))

async function leave() {
  const stream = await client.chat.completions.create({ ...cold, stream: true, max_tokens: 500 })
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break
  return stream.controller.signal.aborted
}
seen.left = await leave()
console.log(JSON.stringify(seen))
