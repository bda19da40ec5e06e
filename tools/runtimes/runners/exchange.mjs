// How a request becomes tensors and tensors an answer: exchange.py's form, for onnxruntime-node and
// onnxruntime-web, in Node and in a browser.

const ARRAYS = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, float64: Float64Array };

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// The numbers of a tensor's `data`, as an array of its type.
export function numbers(type, data) {
  return new ARRAYS[type](bytes(data).buffer);
}

function text(array) {
  const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let said = "";
  for (let start = 0; start < view.length; start += 32768) {
    said += String.fromCharCode(...view.subarray(start, start + 32768));
  }
  return btoa(said);
}

// Every run of `request` on `session`, in exchange.py's form.
export async function answer(ort, session, request) {
  const runs = [];
  for (const run of request.runs) {
    const feeds = {};
    for (const [name, { type, shape, data }] of Object.entries(run)) {
      feeds[name] = new ort.Tensor(type, numbers(type, data), shape);
    }
    const found = await session.run(feeds);
    const outputs = {};
    for (const [name, tensor] of Object.entries(found)) {
      outputs[name] = { type: tensor.type, shape: [...tensor.dims], data: text(tensor.data) };
    }
    runs.push(outputs);
  }
  return { version: "", runs, milliseconds: [] };
}
