// Yaffle's polyfill as it comes: with a header, and the ID of the last update in the query when it comes back.
import polyfill from "event-source-polyfill";

const [url, token] = process.argv.slice(2);
const source = new polyfill.EventSourcePolyfill(url, { headers: { Authorization: `Bearer ${token}` } });
source.onopen = () => console.error("open");
source.onmessage = ({ data }) => {
  console.log(data);
  if (data === "end") source.close();
};
