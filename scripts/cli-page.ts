/** The page of the command line, from the commands themselves. */
import type { Argument, Command, Option } from 'commander'
import { createProgram } from '../src/cli/program.ts'

const columnsMax = 100

export function cliPage(): string {
  const program = createProgram()
  return `${[
    '<!-- Written by `npm run docs` from the commands in src/cli/. Do not edit. -->',
    '# Command line',
    wrap(`${program.description()} The same as \`vmledger COMMAND --help\`.`),
    wrap(
      'What the commands print is shown in [runbook.md](runbook.md), with `--json` in [cli-json.md](cli-json.md). Data goes to stdout, talk to stderr.',
    ),
    '## Options of every command',
    optionsOf(program),
    ...commandsOf(program).flatMap((command) => section(command, '##', 'vmledger')),
    '## Examples and exit codes',
    `\`\`\`\n${examplesOf(program)}\n\`\`\``,
  ].join('\n\n')}\n`
}

/** Without commander's own `help`, and without what is for the demo's processes only. */
const commandsOf = (command: Command): Command[] =>
  command
    .createHelp()
    .visibleCommands(command)
    .filter((each) => each.name() !== 'help')

function section(command: Command, level: string, before: string): string[] {
  const name = `${before} ${command.name()}`
  const words = [name, ...(optionsOf(command) === '' ? [] : ['[OPTIONS]']), ...usesOf(command)]
  const list = [argumentsOf(command), optionsOf(command)].filter((items) => items !== '').join('\n')
  return [
    `${level} ${name.replace('vmledger ', '')}`,
    `\`\`\`\n${words.join(' ')}\n\`\`\``,
    wrap(sentence(command.description())),
    ...(list === '' ? [] : [list]),
    ...commandsOf(command).flatMap((each) => section(each, `${level}#`, name)),
  ]
}

function usesOf(command: Command): string[] {
  const args = command.registeredArguments.map(usageOf)
  return commandsOf(command).length > 0 ? [...args, 'COMMAND'] : args
}

function usageOf(argument: Argument): string {
  const name = `${argument.name().toUpperCase()}${argument.variadic ? '...' : ''}`
  return argument.required ? name : `[${name}]`
}

const argumentsOf = (command: Command): string =>
  command.registeredArguments
    .map((argument) => item(usageOf(argument), argument.description))
    .join('\n')

const optionsOf = (command: Command): string =>
  command.options
    .filter((option) => !option.hidden)
    .map((option) => item(option.flags, saidOf(option)))
    .join('\n')

function saidOf({ description, argChoices, defaultValue }: Option): string {
  const choices = argChoices === undefined ? '' : `: ${argChoices.map(code).join(', ')}`
  const usual = typeof defaultValue === 'string' ? `; ${code(defaultValue)} when left out` : ''
  return description + choices + usual
}

/** Commander keeps texts behind the help as listeners: the help itself is asked. */
function examplesOf(program: Command): string {
  let text = ''
  program.configureOutput({ writeOut: (part) => (text += part) }).outputHelp()
  const start = text.indexOf('\nExamples:')
  if (start === -1) throw new Error('the help of vmledger has no examples')
  return text.slice(start).trim()
}

const code = (text: string): string => `\`${text}\``
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
const item = (name: string, said: string): string => wrap(`- ${code(name)}: ${said}`, '  ')

/** Broken at blanks, never beyond the width of this project's documents. */
export function wrap(line: string, indent = ''): string {
  const lines: string[] = []
  let rest = line
  while (rest.length > columnsMax) {
    const end = rest.lastIndexOf(' ', columnsMax)
    if (end <= indent.length) break
    lines.push(rest.slice(0, end))
    rest = indent + rest.slice(end + 1)
  }
  return [...lines, rest].join('\n')
}
