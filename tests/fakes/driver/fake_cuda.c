/* A stand-in for NVIDIA's driver library, libcuda.so.1, that needs no GPU.
 *
 * The real PyCUDA and the real cuda-bindings run on it: contexts, memory, copies, streams, events, CUDA graphs. Device
 * memory is host memory, and all work is done at once, so it shows wrong addresses, sizes and contexts, leaks, and
 * what happens after errors, but no missing waits (LazyCuda shows those). Kernels are not supported; an engine for a
 * test enqueues a host function.
 *
 * Environment: FAKE_CUDA_DEVICES (1) GPUs of FAKE_CUDA_MIB (1024) MiB each. For tests, through ctypes:
 *   fake_alive(kind)                how many are left: d device blocks, h page-locked blocks, s streams, e events,
 *                                   g graphs, x executable graphs, c retained contexts, p pushed contexts
 *   fake_calls()                    calls of driver functions so far
 *   fake_fail(name, number, error)  the call with this number from now on (1: the next) fails with this error;
 *                                   `name`: count calls of this function only, or empty; number 0: nothing fails
 *   fake_failed()                   the function that failed so, or empty
 *   fake_engine(run)                a host function that computes logits, see below
 *
 * A failing call does nothing, but one that frees something frees it: CUDA reports errors of earlier work there. After
 * ILLEGAL_ADDRESS, as after the real one, every call in a context fails, until fake_fail is called again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
       CAPTURE_INVALIDATED = 901, UNKNOWN = 999 };
enum { COMPUTE_MODE = 20, MULTIPROCESSORS = 16, WARP_SIZE = 10, CC_MAJOR = 75, CC_MINOR = 76 }; /* attributes */
enum { MAX_DEVICES = 8, MAX_DEPTH = 64, MAX_WORK = 64, NO_TIMING = 2, UNWRITTEN = 0xA5 };

typedef void (*HostFunction)(void *);
typedef struct { HostFunction function; void *data; } Work;
typedef struct Object {
    char kind;                      /* as in fake_alive */
    int device;
    unsigned flags;                 /* of an event */
    void *memory;                   /* of a block */
    size_t size;
    int recorded;                   /* of an event: whether, and when */
    struct timespec at;
    int works;                      /* of a graph */
    Work work[MAX_WORK];
    struct Object *graph;           /* of a stream: being captured into this graph */
    struct Object *next;
} Object;
typedef struct { int device, users; } Context; /* the primary context of a GPU; there are no others */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Object *objects;
static Context contexts[MAX_DEVICES];
static int pushed, calls, countdown, error_to_raise, lost;
static char only[64], failed[64];
static __thread Context *stack[MAX_DEPTH];
static __thread int depth, capturing;

#define EXPORT __attribute__((visibility("default"))) int
static void unlock(int *locked) { (void)locked; pthread_mutex_unlock(&mutex); }
#define LOCKED __attribute__((cleanup(unlock), unused)) int locked_ = pthread_mutex_lock(&mutex)

static long setting(const char *name, long otherwise) { return getenv(name) ? atol(getenv(name)) : otherwise; }
static int devices(void) {
    long count = setting("FAKE_CUDA_DEVICES", 1);
    return count > MAX_DEVICES ? MAX_DEVICES : (int)count;
}
static size_t device_bytes(void) { return (size_t)setting("FAKE_CUDA_MIB", 1024) << 20; }

/* Every driver function begins with one of these: count the call, and return its error if it must fail. */
static int counted(const char *name, int in_context) {
    LOCKED;
    calls++;
    if (countdown > 0 && (!*only || !strcmp(name, only)) && --countdown == 0) {
        snprintf(failed, sizeof failed, "%s", name);
        lost = error_to_raise == ILLEGAL_ADDRESS;
        return error_to_raise;
    }
    if (!in_context) return OK;
    return !depth ? INVALID_CONTEXT : lost ? ILLEGAL_ADDRESS : OK;
}
#define CHECKED(expression) do { int code_ = (expression); if (code_) return code_; } while (0)
#define ANYWHERE CHECKED(counted(__func__, 0))
#define IN_CONTEXT CHECKED(counted(__func__, 1))
#define NOT_IN_CAPTURE do { IN_CONTEXT; if (capturing) return CAPTURE_UNSUPPORTED; } while (0)

static Object *add(char kind, size_t size) {
    Object *made = calloc(1, sizeof *made);
    made->kind = kind, made->size = size, made->device = stack[depth - 1]->device;
    if (size && posix_memalign(&made->memory, 4096, size)) return free(made), NULL;
    if (size) memset(made->memory, UNWRITTEN, size); /* what is read before it is written shows */
    LOCKED;
    made->next = objects;
    return objects = made;
}
static Object **found(char kind, const void *key) { /* by address for a block; the mutex must be held */
    Object **at = &objects;
    while (*at && ((*at)->kind != kind || key != ((*at)->memory ? (*at)->memory : (void *)*at))) at = &(*at)->next;
    return at;
}
static int drop(char kind, const void *key, int error) {
    if (!depth && kind != 'g' && kind != 'x') return INVALID_CONTEXT; /* graphs need no context to be destroyed */
    LOCKED;
    Object **at = found(kind, key), *gone = *at;
    if (!gone) return error ? error : INVALID_HANDLE;
    *at = gone->next;
    free(gone->memory), free(gone);
    return error;
}
static int exists(char kind, const void *key) { LOCKED; return *found(kind, key) != NULL; }
static int on_device(uint64_t address, size_t size) { /* whether all these bytes are in one device block */
    LOCKED;
    for (Object *one = objects; one; one = one->next)
        if (one->kind == 'd' && address >= (uint64_t)one->memory
            && address + size <= (uint64_t)one->memory + one->size) return 1;
    return 0;
}
static size_t used_bytes(void) {
    size_t sum = 0;
    LOCKED;
    for (Object *one = objects; one; one = one->next)
        if (one->kind == 'd' && one->device == stack[depth - 1]->device) sum += one->size;
    return sum;
}

/* For tests. */
EXPORT fake_alive(int kind) {
    int count = kind == 'p' ? pushed : 0;
    LOCKED;
    for (Object *one = objects; one; one = one->next) count += one->kind == kind;
    for (int device = 0; kind == 'c' && device < MAX_DEVICES; device++) count += contexts[device].users;
    return count;
}
EXPORT fake_calls(void) { LOCKED; return calls; }
EXPORT fake_fail(const char *name, int number, int error) {
    LOCKED;
    snprintf(only, sizeof only, "%s", name);
    return *failed = 0, lost = 0, error_to_raise = error, countdown = number;
}
__attribute__((visibility("default"))) const char *fake_failed(void) { return failed; }
typedef struct { const uint8_t *images; float *logits; int count, pixels, classes; } Run;
__attribute__((visibility("default"))) void fake_engine(void *data) { /* a host function: what fake_logits computes */
    const Run *run = data;
    for (int n = 0; n < run->count; n++)
        for (int k = 0; k < run->classes; k++) {
            int64_t sum = 0;
            for (int p = 0; p < run->pixels; p++) sum += run->images[(size_t)n * run->pixels + p] * ((p + 1) % (k + 7));
            run->logits[n * run->classes + k] = (float)(sum % 9973);
        }
}

/* The driver and its GPUs. */
EXPORT cuInit(unsigned flags) { (void)flags; ANYWHERE; return devices() ? OK : NO_DEVICE; }
EXPORT cuDriverGetVersion(int *version) { ANYWHERE; return *version = 13000, OK; }
EXPORT cuDeviceGetCount(int *count) { ANYWHERE; return *count = devices(), OK; }
EXPORT cuDeviceGet(int *device, int index) {
    ANYWHERE;
    return *device = index, index >= 0 && index < devices() ? OK : INVALID_DEVICE;
}
EXPORT cuDeviceGetName(char *to, int size, int device) {
    ANYWHERE;
    return snprintf(to, size, "Fake GPU %d", device), OK;
}
EXPORT cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; ANYWHERE; return *bytes = device_bytes(), OK; }
EXPORT cuDeviceGetAttribute(int *value, int which, int device) {
    ANYWHERE;
    (void)device;
    *value = which == CC_MAJOR ? 9 : which == MULTIPROCESSORS ? 132 : which == WARP_SIZE ? 32 : 0;
    return OK;
}
EXPORT cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    ANYWHERE;
    return memset(uuid, 0x10 + device, 16), OK;
}
static const struct { int error; const char *name, *text; } ERRORS[] = {
    {OK, "CUDA_SUCCESS", "no error"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"}};
EXPORT cuGetErrorString(int error, const char **text) {
    for (size_t k = 0; k < sizeof ERRORS / sizeof *ERRORS; k++)
        if (ERRORS[k].error == error) return *text = ERRORS[k].text, OK;
    return *text = NULL, INVALID_VALUE;
}
EXPORT cuGetErrorName(int error, const char **name) {
    for (size_t k = 0; k < sizeof ERRORS / sizeof *ERRORS; k++)
        if (ERRORS[k].error == error) return *name = ERRORS[k].name, OK;
    return *name = NULL, INVALID_VALUE;
}
EXPORT cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    static const char *const SUFFIXES[] = {"_v4", "_v3", "_v2", ""}; /* the newest is what cuda.h means */
    Dl_info here;
    (void)version, (void)flags;
    dladdr((void *)cuInit, &here);
    void *library = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    *function = NULL;
    for (int k = 0; !*function && k < 4; k++) {
        char whole[128];
        snprintf(whole, sizeof whole, "%s%s", name, SUFFIXES[k]);
        *function = dlsym(library, whole);
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}

/* Primary contexts, and the stack of contexts that every thread has. */
EXPORT cuDevicePrimaryCtxRetain(Context **context, int device) {
    ANYWHERE;
    LOCKED;
    *context = &contexts[device];
    return contexts[device].device = device, contexts[device].users++, OK;
}
EXPORT cuDevicePrimaryCtxRelease_v2(int device) {
    int error = counted(__func__, 0);
    LOCKED;
    return contexts[device].users > 0 ? contexts[device].users--, error : INVALID_CONTEXT;
}
EXPORT cuCtxPushCurrent_v2(Context *top) {
    ANYWHERE;
    if (depth == MAX_DEPTH) return UNKNOWN;
    LOCKED;
    return stack[depth++] = top, pushed++, OK;
}
EXPORT cuCtxPopCurrent_v2(Context **top) {
    ANYWHERE;
    if (!depth) return INVALID_CONTEXT;
    LOCKED;
    return *top = stack[--depth], pushed--, OK;
}
EXPORT cuCtxGetCurrent(Context **top) { ANYWHERE; return *top = depth ? stack[depth - 1] : NULL, OK; }
EXPORT cuCtxGetDevice(int *device) { IN_CONTEXT; return *device = stack[depth - 1]->device, OK; }
EXPORT cuCtxSynchronize(void) { NOT_IN_CAPTURE; return OK; }

/* Memory and copies. */
EXPORT cuMemGetInfo_v2(size_t *left, size_t *total) {
    IN_CONTEXT;
    return *total = device_bytes(), *left = *total - used_bytes(), OK;
}
EXPORT cuMemAlloc_v2(uint64_t *address, size_t size) {
    NOT_IN_CAPTURE;
    if (!size) return INVALID_VALUE;
    Object *made = size <= device_bytes() - used_bytes() ? add('d', size) : NULL;
    return made ? *address = (uint64_t)made->memory, OK : OUT_OF_MEMORY;
}
EXPORT cuMemFree_v2(uint64_t address) { return drop('d', (void *)address, counted(__func__, 1)); }
EXPORT cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
    (void)flags;
    NOT_IN_CAPTURE;
    Object *made = add('h', size ? size : 1);
    return made ? *memory = made->memory, OK : OUT_OF_MEMORY;
}
EXPORT cuMemFreeHost(void *memory) { return drop('h', memory, counted(__func__, 1)); }
static int copied(uint64_t to, uint64_t from, size_t size, uint64_t device_side) {
    if (capturing) return CAPTURE_UNSUPPORTED; /* as an upload from memory that may change would be */
    if (!on_device(device_side, size)) return ILLEGAL_ADDRESS;
    return memcpy((void *)to, (void *)from, size), OK;
}
EXPORT cuMemcpyHtoD_v2(uint64_t to, uint64_t from, size_t size) { IN_CONTEXT; return copied(to, from, size, to); }
EXPORT cuMemcpyDtoH_v2(uint64_t to, uint64_t from, size_t size) { IN_CONTEXT; return copied(to, from, size, from); }
EXPORT cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream) {
    IN_CONTEXT;
    return exists('s', stream) ? copied(to, from, size, to) : INVALID_HANDLE;
}
EXPORT cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream) {
    IN_CONTEXT;
    return exists('s', stream) ? copied(to, from, size, from) : INVALID_HANDLE;
}

/* Streams, events, host functions. Nothing ever has to be waited for. */
EXPORT cuStreamCreate(Object **stream, unsigned flags) { (void)flags; IN_CONTEXT; return *stream = add('s', 0), OK; }
EXPORT cuStreamDestroy_v2(Object *stream) { return drop('s', stream, counted(__func__, 1)); }
EXPORT cuStreamSynchronize(Object *stream) {
    IN_CONTEXT;
    return !exists('s', stream) ? INVALID_HANDLE : stream->graph ? CAPTURE_UNSUPPORTED : OK;
}
EXPORT cuStreamWaitEvent(Object *stream, Object *event, unsigned flags) {
    (void)flags;
    IN_CONTEXT;
    return exists('s', stream) && exists('e', event) ? OK : INVALID_HANDLE;
}
EXPORT cuEventCreate(Object **event, unsigned flags) {
    IN_CONTEXT;
    return *event = add('e', 0), (*event)->flags = flags, OK;
}
EXPORT cuEventDestroy_v2(Object *event) { return drop('e', event, counted(__func__, 1)); }
EXPORT cuEventRecord(Object *event, Object *stream) {
    IN_CONTEXT;
    if (!exists('e', event) || !exists('s', stream)) return INVALID_HANDLE;
    return event->recorded = 1, clock_gettime(CLOCK_MONOTONIC, &event->at), OK;
}
EXPORT cuEventSynchronize(Object *event) { IN_CONTEXT; return exists('e', event) ? OK : INVALID_HANDLE; }
EXPORT cuEventElapsedTime_v2(float *ms, Object *from, Object *to) {
    IN_CONTEXT;
    if ((from->flags | to->flags) & NO_TIMING || !from->recorded || !to->recorded) return INVALID_HANDLE;
    *ms = (to->at.tv_sec - from->at.tv_sec) * 1e3f + (to->at.tv_nsec - from->at.tv_nsec) / 1e6f;
    return OK;
}
EXPORT cuLaunchHostFunc(Object *stream, HostFunction function, void *data) {
    IN_CONTEXT;
    if (!exists('s', stream)) return INVALID_HANDLE;
    if (!stream->graph) return function(data), OK;
    if (stream->graph->works == MAX_WORK) return UNKNOWN;
    return stream->graph->work[stream->graph->works++] = (Work){function, data}, OK;
}

/* Graphs: host functions that were captured from one stream. */
EXPORT cuStreamBeginCapture_v2(Object *stream, int mode) {
    (void)mode;
    IN_CONTEXT;
    if (!exists('s', stream)) return INVALID_HANDLE;
    return stream->graph = add('g', 0), capturing++, OK;
}
EXPORT cuStreamEndCapture(Object *stream, Object **graph) {
    int error = counted(__func__, 1);
    if (!exists('s', stream) || !stream->graph) return INVALID_HANDLE;
    *graph = stream->graph, stream->graph = NULL, capturing--;
    if (error) drop('g', *graph, OK), *graph = NULL;
    return error;
}
EXPORT cuGraphDestroy(Object *graph) { return drop('g', graph, counted(__func__, 0)); }
EXPORT cuGraphInstantiateWithFlags(Object **made, Object *graph, unsigned long long flags) {
    (void)flags;
    IN_CONTEXT;
    *made = add('x', 0);
    return (*made)->works = graph->works, memcpy((*made)->work, graph->work, sizeof graph->work), OK;
}
EXPORT cuGraphLaunch(Object *made, Object *stream) {
    IN_CONTEXT;
    if (!exists('x', made) || !exists('s', stream)) return INVALID_HANDLE;
    for (int k = 0; k < made->works; k++) made->work[k].function(made->work[k].data);
    return OK;
}
EXPORT cuGraphExecDestroy(Object *made) { return drop('x', made, counted(__func__, 0)); }
