// One folder per question; each writes its own results.md.
await import("./start/run.ts");
await import("./overhead/run.ts");
await import("./latency/run.ts");
await import("./tenants/run.ts");
