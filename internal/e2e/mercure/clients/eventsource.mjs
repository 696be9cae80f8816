// The EventSource of browsers, for Node, with a token in a cookie.
import { EventSource } from "eventsource";

const [url, token] = process.argv.slice(2);
const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Cookie: `mercureAuthorization=${token}` } }),
});
source.onopen = () => console.error("open");
source.onmessage = ({ data }) => {
  console.log(data);
  if (data === "end") source.close();
};
