export { isSaveable, type PlainValue, type Saveable, StateError, type StateIo } from './saveable.ts';
export { StateReader } from './state-reader.ts';
export { StateWriter } from './state-writer.ts';
