// What can be scrolled sideways can be reached by the keyboard, too.
document$.subscribe(() =>
  setTimeout(() => {
    for (const part of document.querySelectorAll(".md-typeset__scrollwrap, div.formula"))
      if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  })
);

// What is copied from an example is code that can be pasted: without prompts and without what they print.
document.addEventListener("copy", (event) => {
  const field = document.activeElement;
  const inField = field && field.tagName === "TEXTAREA";
  const text = inField ? field.value.slice(field.selectionStart, field.selectionEnd) : getSelection().toString();
  if (!/^>>> /m.test(text)) return;
  const code = text.split("\n").filter((line) => /^(>>>|\.\.\.)( |$)/.test(line));
  event.clipboardData.setData("text/plain", code.map((line) => line.slice(4)).join("\n") + "\n");
  event.preventDefault();
});
