// Draws every chart of the page in its colours, light or dark, and again when those change.
const specs = JSON.parse(document.getElementById("specs").textContent);
const chartStyle = document.getElementById("chart-style").textContent;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// The style of charts names the page's colours, which are its style sheet's.
function config() {
  const page = getComputedStyle(document.documentElement);
  const isColour = (value) => typeof value === "string" && value.startsWith("--");
  return JSON.parse(chartStyle, (_, value) => (isColour(value) ? page.getPropertyValue(value).trim() : value));
}

async function draw(element) {
  try {
    await vegaEmbed(element, specs[element.dataset.chart], {
      actions: false,
      config: config(),
      renderer: element.dataset.renderer,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
  } catch (error) {
    element.textContent = `This chart cannot be drawn: ${error.message}`;
    throw error;
  }
}

// What is folded away has no width yet; it is drawn when it is opened.
const isSeen = (element) => element.closest("details:not([open])") === null;

async function drawAll() {
  await Promise.all([...document.querySelectorAll("[data-chart]")].filter(isSeen).map(draw));
  document.documentElement.dataset.charts = "drawn";
}

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    const empty = (element) => element.childElementCount === 0 && isSeen(element);
    [...details.querySelectorAll("[data-chart]")].filter(empty).forEach(draw);
  });
}
dark.addEventListener("change", drawAll);
drawAll();
