// It does not look at the data: what ends it is the answer 204.
import { EventSource } from "eventsource";

let text = "";
const source = new EventSource(process.argv[2]);
source.onmessage = ({ data }) => {
  if (data !== "[DONE]") text += data;
};
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED) process.stdout.write(text);
};
