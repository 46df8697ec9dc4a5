// Where a picture lies in its canvas, and how large a canvas really is: computed here once, for the picture and for
// what is drawn above it. Knows no source and no drawing.

/**
 * Where a picture of width × height lies in a canvas, whole and in the middle (`object-fit: contain`), in whole device
 * pixels: {left, top, width, height}, and `x`, `y` that take a place in the picture's own pixels to one in the canvas.
 */
export function fit(width, height, canvasWidth, canvasHeight) {
  const scale = Math.min(canvasWidth / width, canvasHeight / height);
  const placed = { width: Math.round(width * scale), height: Math.round(height * scale) };
  const left = Math.floor((canvasWidth - placed.width) / 2);
  const top = Math.floor((canvasHeight - placed.height) / 2);
  const x = (place) => left + (place * placed.width) / width;
  const y = (place) => top + (place * placed.height) / height;
  return { ...placed, left, top, x, y };
}

/** Tells `onSize(width, height)` in device pixels, now and whenever that changes, until `disconnect()`. */
export function watchSize(target, onSize) {
  const observer = new ResizeObserver(([entry]) => {
    const { width, height } = entry.contentRect;
    const exact = entry.devicePixelContentBoxSize?.[0];
    onSize(devicePixels(width, exact?.inlineSize), devicePixels(height, exact?.blockSize));
  });
  try {
    observer.observe(target, { box: "device-pixel-content-box" });
  } catch {
    observer.observe(target);
  }
  return observer;
}

/** `exact` is how the browser rounded it; with a device that it only plays (developer tools), it is another's. */
function devicePixels(cssPixels, exact) {
  const about = cssPixels * window.devicePixelRatio;
  return exact !== undefined && Math.abs(exact - about) < 2 ? exact : Math.round(about);
}
