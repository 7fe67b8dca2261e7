// The types of the page's data (page_data.py makes it) and of its views, for checking alone.
interface Column {
  id: string; task: string; version: number; capability: string; kind: string;
  metric: string; signature: string; higher_is_better: boolean; unit: "points" | "own";
  template: string; template_version: number; scoring: string; protocol: string[];
  dev_sha256: string | null; test_sha256: string | null; n: number; official: boolean;
  notes: string[]; apart: string[]; majority: number | null; shortcuts: Record<string, number>;
}
interface Places { first: number; last: number; of: number }
interface Cost {
  n_trainable: number | null; bytes: number | null; samples_per_second: number | null;
  seconds: number | null; peak_memory_bytes: number | null; energy_joules?: number | null;
  samples_per_second_std?: number | null; seconds_std?: number | null; // over seeds
  forgetting?: number | null; // of a row: nats per character by which plain texts are predicted worse
  scaling: { world_size: number; samples_per_second: number; efficiency: number | null }[];
}
// A measured cell. n: seeds; zero: zero-shot control; few: training was cut short.
interface Cell {
  mean: number; std: number | null; low: number; high: number; places: Places | null;
  n: number; zero: number | null; few?: boolean;
}
// A published score, as the page shows it: `mean` is its value, and it has no interval.
interface Quote {
  mean: number; std: null; low: null; high: null; value: number; metric: string; printed: string;
  scoring: string; template: string; source: string; note: string;
}
interface Index { value: number | null; missing: string[]; places: Places | null }
interface MeasuredRow {
  id: string; backbone: string; backbone_sha256: string; control: string; delta: string;
  settings: Record<string, string>; cells: Record<string, Cell>; coverage: number;
  indices: Record<string, Index>; forgetting: number | null; cost: Cost; quoted: false;
}
interface QuotedRow {
  id: string; name: string; setting: string; cells: Record<string, Quote>;
  indices: Record<string, Index>; quoted: true; backbone: string; delta: string; control: "";
  settings: Record<string, string>; coverage: number; cost: null;
}
type Row = MeasuredRow | QuotedRow;
interface Board {
  columns: Column[]; rows: MeasuredRow[]; quoted: QuotedRow[]; sources: Record<string, string>;
  indices: Record<string, { title: string; rule: string; columns: Record<string, string | null>; baseline: string }>;
  n_runs: number; left_out: string[];
}
interface SeedRun { run_id: string; seed: number; value: number; low: number; high: number }
// What a cell is made of; `settings` is a number of the part's list.
interface Detail {
  interval: string; runs: SeedRun[]; others: Record<string, number>; settings: number; notes: string[]; cost: Cost;
  trained_on?: number; forgetting: { mean: number; sources: Record<string, number>; texts: string } | null;
}
interface Details {
  rows: Record<string, Record<string, Detail>>;
  settings: Record<string, string>[];
}
interface Curve { step: number[]; dev: number[]; loss: number[] }
// Rows that runs were tested on: their lengths, and texts of the first if they are shown.
interface ExampleSet {
  rows: { text: string; after?: string; options?: string[] }[]; lengths: number[];
  slot?: "option" | "answer"; labels?: unknown[]; options?: string[];
}
// Predictions by column. `right` has a letter per example: 1, 0, or - if it is not judged. `lead`: how
// much higher the right option's score is than the best other one's.
interface Examples {
  id: string[] | null; prediction: unknown[]; target: unknown[]; right: string; text?: (string | null)[];
  scores?: number[][]; lead?: (number | null)[];
}
interface Again {
  recipe: string; differences: { key: string; value: unknown; usual: unknown; known: boolean }[]; command: string;
  changed: string[]; // settings that only the record has, or only the version that made the page
}
interface Calibration {
  n: number; ece: number; brier: number; bins: { low: number; n: number; confidence: number; accuracy: number }[];
}
interface Errors {
  n: number; labels: string[]; confusion: number[][]; calibration: Calibration | null;
  per_label: { label: string; precision: number; recall: number; f1: number; n: number }[];
  buckets: Record<string, { value: number; low: number; high: number; n: number }>;
}
// A run's own part. `record` is the text of its run.json, `set` the name of its rows' set, `n` how many
// examples it has in all, `file` the copy of its predictions in the folder next to the page.
interface RunPart {
  folder: string; record: string | null; again: Again | null; errors: Errors | null; set: string | null;
  n: number; examples: Examples; file?: string;
}
interface WholeRun extends RunPart { run: string; parsed: any; rows: ExampleSet | null }
interface DataSource { title: string; paper: string; licence: string; obtain: string; bibtex: string; citation: string }
// The parts of the data, by name. A part that a view adds is declared here as well.
interface Parts {
  live: { version: string }; // of a served page
  board: Board;
  details: Details;
  curves: Record<string, Curve>;
  runs: { folder: string; of: Record<string, string> };
  sources: Record<string, DataSource>;
}
// What a server says (serve/), and what becomes of a file that it scores.
interface LiveRun {
  id: string; name: string; seed: number; working: boolean | null; stage: string; step: number;
  total: number; metric: string; dev: number | null; left: number | null; silent: number;
}
interface LiveState {
  version: string; poll: number;
  activity: {
    runs: LiveRun[]; more: number; failed: { name: string; error: string }[]; error?: string;
    sweeps: { folder: string; total: number; finished?: number; running?: number; failed?: number; waiting?: number }[];
  };
  scoring: { tasks: string[]; keep: boolean; most_bytes: number };
}
type LiveResult =
  | { word: [string, ...(string | number)[]] }
  | { error: string }
  | {
      id: string; name: string; row: string; task: string; split: string; metric: string; warnings: string[];
      scores: Record<string, { value: number; low: number; high: number; n: number }>; existed: boolean; kept: boolean;
    };
// What a link says after "#/": the view's name, what it is about, and settings of the view.
interface Route { name: string; about: string[]; query: URLSearchParams }
interface View {
  name: string;
  title: string; // key of the words
  inMenu?: boolean;
  render: (place: HTMLElement, route: Route) => void;
}
interface Window {
  cpmTune: { update: (parts: Partial<Parts>) => void; give: (name: string, value: unknown) => void };
}
