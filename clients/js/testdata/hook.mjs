// Renders a component that listens, and prints what it shows: node hook.mjs URL
import { createElement, StrictMode } from "react";
import { act, create } from "react-test-renderer";
import { createInterface } from "node:readline";
import { useTopic } from "../dist/react.js";

globalThis.IS_REACT_ACT_ENVIRONMENT = false;
function News({ topic }) {
  const [news, state] = useTopic(process.argv[2], topic, (all, { data }) => [...all, data], []);
  console.log(JSON.stringify({ topic, news, state }));
  return null;
}
const show = (topic) => createElement(StrictMode, null, createElement(News, { topic }));
const root = create(show("a"));
createInterface(process.stdin)
  .on("line", (topic) => root.update(show(topic)))
  .on("close", () => root.unmount());
