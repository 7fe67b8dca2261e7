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
  seconds: number | null; peak_memory_bytes: number | null;
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
interface Details {
  rows: Record<string, Record<string, {
    interval: string; runs: SeedRun[]; others: Record<string, number>; settings: number; notes: string[]; cost: Cost;
    forgetting: { mean: number; sources: Record<string, number>; texts: string } | null;
  }>>;
  settings: Record<string, string>[];
}
interface Curve { step: number[]; dev: number[]; loss: number[] }
interface Prediction {
  id: string; prediction: unknown; target: unknown; right: boolean | null; scores?: number[];
  text?: string; row?: number;
}
interface ExampleSet {
  rows: { text: string; after?: string; options?: string[] }[]; slot?: "option" | "answer";
  labels?: unknown[]; options?: string[];
}
// The parts of the data, by name. A part that a view adds is declared here as well.
interface Parts {
  live: { version: string }; // of a served page
  board: Board;
  details: Details;
  curves: Record<string, Curve>;
  predictions: Record<string, Prediction[]>;
  texts: { sets: ExampleSet[]; of: Record<string, number> };
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
interface Window { cpmTune: { update: (parts: Partial<Parts>) => void } }
