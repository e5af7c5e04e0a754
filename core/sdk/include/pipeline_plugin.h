/*
 * The plugin boundary of pipeline, version 1.1.
 *
 * A plugin is a shared library named libpipeline_plugin_NAME.so that exports one symbol:
 *
 *     const pl_root *pipeline_plugin_root(void);
 *
 * and, if it will, a second one that says which types are in it (its components' and its replica's), each with a line feed behind
 * it. The host reads that from the file, without opening the library, and opens it only when a pipeline names one of them:
 *
 *     const char pipeline_plugin_types[] = "lines\n";
 *
 * Rules
 *  - Every struct of functions, pl_message, pl_output and pl_instance start with their size in bytes. Both sides use the part
 *    that both know; the major version must be equal, a higher minor version only appends. So: `out` and `instance` come with
 *    their size set, write no more than that; the next message of an array is items[0].size bytes further.
 *  - Memory is freed by who made it: a pl_buffer and a pl_messages carry the function that releases them.
 *  - No call throws, longjmps or unwinds across the boundary.
 *  - One call of an instance at a time, from any thread. A future is polled until it is ready and then dropped, never before;
 *    an instance is never destroyed under a call in flight.
 *  - Texts are UTF-8 without a trailing NUL. Times are nanoseconds since the epoch. Integers are native.
 */
#ifndef PIPELINE_PLUGIN_H
#define PIPELINE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PL_ABI_MAJOR 1u
#define PL_ABI_MINOR 1u

/* The Arrow C Data Interface, https://arrow.apache.org/docs/format/CDataInterface.html */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

#endif

/* Borrowed bytes: valid for the call, or as long as what they stand in. */
typedef struct pl_slice {
  const uint8_t *data;
  size_t len;
} pl_slice;

/* Owned bytes: the receiver calls release(owner) once; release may be null. */
typedef struct pl_buffer {
  const uint8_t *data;
  size_t len;
  void *owner;
  void (*release)(void *owner);
} pl_buffer;

enum { PL_MESSAGE_ROWS = 1, PL_MESSAGE_CHANGE = 2, PL_MESSAGE_FRAME = 3 };

enum {
  PL_FLAG_ENDS_POSITION = 1, /* the last message of its upstream offset */
  PL_FLAG_HAS_NUMBER = 2,    /* position_number is meant */
  PL_FLAG_REPLICATED = 4,    /* written at its source by a replica; never cleared by a transform */
  PL_FLAG_REPLAYED = 8,      /* may have been written before a restart */
  PL_FLAG_HAS_EVENTS = 16    /* events_from and events_to are meant */
};

/* The rows of one table within a batch: from first_row to the next run's. */
typedef struct pl_run {
  uint64_t first_row;
  pl_slice namespace_;
  pl_slice table;
  pl_slice group;
  pl_slice labels; /* JSON object or empty */
} pl_run;

/*
 * One message. The slices are valid until the array that holds it is released; `data`, `schema` and `array` are moved out by
 * the receiver, who clears them in place (for the Arrow structs: release = NULL and format = NULL).
 */
typedef struct pl_message {
  uint32_t size;
  uint32_t kind;
  uint32_t flags;
  uint32_t tables; /* frame: tables in it, with repetition */
  pl_slice lane;
  uint64_t sequence;
  pl_slice position; /* opaque: what the source resumes behind */
  pl_slice position_display;
  int64_t position_number;
  pl_slice site; /* of a replicated message: where it comes from, or empty */
  int64_t events_from;
  int64_t events_to;
  pl_slice namespace_; /* frame */
  uint64_t rows;       /* frame */
  pl_slice format;     /* frame: its format; change: the format of data */
  pl_buffer data;      /* frame: its bytes; change: its opaque form */
  pl_slice change;     /* change as JSON: kind, identity, namespace, group, tables, detail */
  uint64_t schema_id;  /* rows */
  struct ArrowSchema schema; /* rows: empty (all zero) where this id was sent before in this direction */
  struct ArrowArray array;   /* rows: a struct array, one child a column */
  const pl_run *runs;
  size_t run_count;
  uint64_t replayed_rows; /* with PL_FLAG_REPLAYED: rows at the start that may have been written; all ones: all of them */
} pl_message;

/* An array of messages; release(owner) frees the array and its slices, not what was moved out. */
typedef struct pl_messages {
  pl_message *items;
  size_t len;
  void *owner;
  void (*release)(void *owner);
} pl_messages;

enum { PL_OK = 0, PL_ERROR = 1 };

enum {
  PL_POLLED_MESSAGES = 0,
  PL_POLLED_IDLE = 1,
  PL_POLLED_END = 2,
  PL_POLLED_LANES = 3 /* bytes: {"assigned": [...], "revoked": [...]} */
};

/*
 * What a call returns. With status PL_ERROR, `bytes` is
 * {"reaction": "disconnected" | "retry" | "rejected" | "fatal", "code", "path", "message", "hint", "rows"};
 * only reaction and message are needed.
 */
typedef struct pl_output {
  uint32_t size;
  uint32_t status;
  uint32_t kind; /* of next: PL_POLLED_*; of state_get: 1 where the key exists */
  uint32_t reserved;
  uint64_t count; /* of write: messages written, also when an error follows */
  pl_buffer bytes;
  pl_messages messages;
} pl_output;

typedef struct pl_waker_table {
  uint32_t size;
  const void *(*clone)(const void *data);
  void (*wake)(const void *data); /* consumes */
  void (*wake_by_ref)(const void *data);
  void (*drop)(const void *data);
} pl_waker_table;

typedef struct pl_waker {
  const void *data;
  const pl_waker_table *table;
} pl_waker;

enum { PL_PENDING = 0, PL_READY = 1 };

/* A call under way. The waker is borrowed for the poll: clone it to keep it. `drop` may be null. */
typedef struct pl_future {
  void *state;
  uint32_t (*poll)(void *state, const pl_waker *waker, pl_output *out);
  void (*drop)(void *state);
} pl_future;

typedef struct pl_source_table {
  uint32_t size;
  pl_future (*connect)(void *instance, pl_slice checkpoint); /* -> bytes: identity or empty */
  pl_future (*next)(void *instance, uint64_t wait_ns);
  pl_future (*commit)(void *instance, pl_slice checkpoint);
  pl_future (*progress)(void *instance); /* -> bytes: [{"lane", "oldest", "current", "latest", "retention_seconds"?, "ends"?}] */
  void (*destroy)(void *instance);
  /* Since 1.1, may be null. From any thread while next is under way: that call, or the next one, returns soon. A source that has it
   * is asked to wait for longer than its freshness while nothing comes, and returns a second after something came at the latest. */
  void (*interrupt)(void *instance);
} pl_source_table;

typedef struct pl_transform_table {
  uint32_t size;
  void (*apply)(void *instance, pl_messages messages, pl_output *out);
  void (*barrier)(void *instance, pl_output *out);
  void (*destroy)(void *instance);
} pl_transform_table;

typedef struct pl_sink_table {
  uint32_t size;
  pl_future (*connect)(void *instance); /* -> bytes: identity or empty */
  pl_future (*write)(void *instance, pl_messages messages);
  pl_future (*flush)(void *instance); /* ready and ok: durable */
  void (*destroy)(void *instance);
} pl_sink_table;

typedef struct pl_service_table {
  uint32_t size;
  pl_future (*run)(void *instance);
  void (*stop)(void *instance); /* from any thread, while run is under way */
  void (*destroy)(void *instance);
} pl_service_table;

typedef struct pl_site_table {
  uint32_t size;
  pl_future (*call)(void *instance, pl_slice method, pl_slice arguments); /* JSON in, JSON out */
  void (*destroy)(void *instance);
} pl_site_table;

enum { PL_KIND_SOURCE = 1, PL_KIND_TRANSFORM = 2, PL_KIND_SINK = 3, PL_KIND_SERVICE = 4, PL_KIND_SITE = 5 };

/* A component that was made; `table` is the table of its kind and lives for ever. */
typedef struct pl_instance {
  uint32_t size;
  uint32_t kind;
  void *instance;
  const void *table;
} pl_instance;

/*
 * What the host offers, one per instance. Copy the struct during `create`; its context is valid until you call `release`, last
 * of all. Every function may be called from any thread.
 */
typedef struct pl_host {
  uint32_t size;
  void *context;
  void (*log)(void *context, uint32_t level, pl_slice target, pl_slice message, pl_slice fields); /* 1 error .. 5 trace */
  void (*counter)(void *context, pl_slice name, uint64_t add);
  void (*gauge)(void *context, pl_slice name, double value);
  void (*incident)(void *context, pl_slice incident); /* {"kind", "message", "detail"} */
  void (*state_get)(void *context, uint32_t shared, pl_slice key, pl_output *out);
  void (*state_put)(void *context, uint32_t shared, pl_slice key, uint32_t exists, pl_slice value, pl_output *out);
  void (*state_keys)(void *context, uint32_t shared, pl_slice prefix, pl_output *out); /* -> JSON array */
  uint32_t (*is_cancelled)(void *context);
  void (*ready)(void *context); /* of a service: it can be used */
  void (*release)(void *context);
} pl_host;

/*
 * The root table. `description` returns JSON:
 * {"name", "version", "license", "summary", "components": [{"type", "kind", "summary", "schema", "provides", "requires",
 *  "frames", "any-frame", "task-key", "merged-lanes", "generator", "blocking"}]}
 */
typedef struct pl_root {
  uint32_t size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;
  pl_slice (*description)(void);
  void (*lint)(uint32_t kind, pl_slice component, pl_slice config, pl_output *out); /* -> JSON array of errors */
  void (*create)(uint32_t kind, pl_slice component, pl_slice config, pl_slice place, const pl_host *host,
                 pl_instance *instance, pl_output *out); /* takes over host, also when it fails */
  pl_future (*discover)(pl_slice component, pl_slice config); /* -> JSON array of task values */
  void (*decode)(pl_slice component, pl_messages frame, pl_output *out); /* pure, thread-safe */
} pl_root;

const pl_root *pipeline_plugin_root(void);
extern const char pipeline_plugin_types[];

#ifdef __cplusplus
}
#endif
#endif
