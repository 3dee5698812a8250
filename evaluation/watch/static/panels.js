// A panel: a caption with a legend and numbers, a drawing, and an explanation that can be asked for.

/** A new element with properties, attributes (aria-*, role, data-*) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/**
 * @param {string} kind class of the canvas: chart, bars or heat.
 * @param {string} description what the drawing is, for those who do not see it.
 * @param {string} why one or two sentences that explain it.
 */
export function panel(kind, description, why) {
  const canvas = make("canvas", { className: kind, role: "img", "aria-label": description });
  const caption = make("figcaption", { title: why });
  const reason = make("p", { className: "why", textContent: why });
  let shown = "";
  return {
    canvas,
    caption,
    figure: make("figure", { className: `panel ${kind}-panel` }, caption, canvas, reason),
    explain(text) {
      if (reason.textContent === text) return;
      reason.textContent = caption.title = text;
    },
    /**
     * Words and numbers; the numbers stand out.
     * @param {(string | [string, string, string?])[]} parts words, or words with a number and the colour of a legend.
     */
    label(...parts) {
      const text = JSON.stringify(parts);
      if (text === shown) return;
      shown = text;
      caption.replaceChildren(
        ...parts.map((part) => {
          const [words, number, swatch] = Array.isArray(part) ? part : [part];
          const span = make("span", {});
          if (swatch) span.append(make("i", { className: `swatch ${swatch}` }));
          if (words) span.append(make("span", { className: "words", textContent: `${words} ` }));
          if (number) span.append(make("b", { textContent: number }));
          return span;
        }),
      );
    },
  };
}
