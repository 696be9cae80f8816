// The little Markdown that models write, made of DOM nodes. Nothing of it ever becomes HTML.

const fence = /^\s*```/;
const heading = /^#{1,6}\s+(.*)/;
const item = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)/;
const span = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/;

// markdown works on an answer that is still growing, too.
export function markdown(text) {
  const out = document.createDocumentFragment();
  let code; // the open block of code
  let list; // the open list
  let block; // what the next line of text goes on with
  for (const line of text.split("\n")) {
    if (fence.test(line)) {
      code = code ? undefined : add(add(out, "pre"), "code");
      list = block = undefined;
    } else if (code) {
      code.append(line, "\n");
    } else if (!line.trim()) {
      block = undefined;
    } else if (heading.test(line)) {
      inline(add(out, "h3"), line.match(heading)[1]);
      list = block = undefined;
    } else if (item.test(line)) {
      const [, number, rest] = line.match(item);
      const tag = number ? "OL" : "UL";
      if (list?.tagName !== tag) {
        list = add(out, tag);
        if (number) list.start = number;
      }
      block = add(list, "li");
      inline(block, rest);
    } else if (block) {
      block.append(" ");
      inline(block, line.trim());
    } else {
      block = add(out, "p");
      list = undefined;
      inline(block, line.trim());
    }
  }
  return out;
}

function inline(to, text) {
  for (const part of text.split(span)) {
    if (!span.test(part)) to.append(part);
    else if (part.startsWith("`")) add(to, "code").append(part.slice(1, -1));
    else if (part.startsWith("**")) add(to, "strong").append(part.slice(2, -2));
    else add(to, "em").append(part.slice(1, -1));
  }
}

function add(to, tag) {
  const made = document.createElement(tag);
  to.append(made);
  return made;
}
