// One folder per question; each writes its own results.md.
await import("./overhead/run.ts");
