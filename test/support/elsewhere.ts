// Makes a process believe that it does not run on Linux (node --import).
Object.defineProperty(process, 'platform', { value: 'darwin' })
