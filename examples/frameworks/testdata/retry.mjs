// Listens with the page's own client, and prints what it does: node retry.mjs retry.js URL
const { listen } = await import(process.argv[2]);
await listen(process.argv[3], {
  event: ({ name, data }) => console.log(name, data),
  waiting: (ms, why) => console.error(`${why}; next try in ${(ms / 1000).toFixed(3)} s`),
  refused: (response) => (console.error("refused:", response.status), (process.exitCode = 1), false),
});
process.exit(); // or Node waits for connections that it keeps for later
