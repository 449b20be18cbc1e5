/* tests/mesh/nvml/fake_nvml.c -- a libnvidia-ml.so.1 that serves the machine in the file $FAKE_NVML:
 *
 *   gpu PCI UUID NUMA MIG MODEL...   in NVML's order; NUMA -1: not supported
 *   link GPU COUNT END               COUNT links of GPU (a number) that end at END: a PCI address,
 *                                    "switch", "hidden" (a switch without an address), "down"
 *   fail FUNCTION CODE [GPU]         the function returns CODE, of that GPU alone where one is named
 *
 * Written from NVML's reference, without its header. As there, threads may start it several times: the last
 * shutdown ends it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GPUS = 32, MAX_LINKS = 18, MAX_FAILS = 8 };
enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, UNINITIALIZED = 1 };

struct end {
    char pci[24];
    int kind; /* 0 GPU, 2 switch, 255 unknown */
    int is_down;
};
struct gpu {
    char pci[24], uuid[64], model[64];
    int numa, mig, num_links;
    struct end links[MAX_LINKS];
};
struct fail {
    char function[64];
    int code, gpu;
};
static struct gpu gpus[MAX_GPUS];
static struct fail fails[MAX_FAILS];
static unsigned num_gpus, num_fails, num_started;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

struct pci_info {
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};

static int failure_of(const char *function, const struct gpu *gpu)
{
    for (unsigned i = 0; i < num_fails; i++) {
        if (strcmp(fails[i].function, function) == 0 &&
            (fails[i].gpu < 0 || gpu == &gpus[fails[i].gpu]))
            return fails[i].code;
    }
    return strcmp(function, "nvmlInit_v2") == 0 || num_started > 0 ? OK : UNINITIALIZED;
}

#define CHECK(gpu)                                                                                 \
    do {                                                                                           \
        const int code = failure_of(__func__, gpu);                                                \
        if (code != OK)                                                                            \
            return code;                                                                           \
    } while (0)

static void add_links(struct gpu *gpu, int count, const char *to)
{
    for (; count > 0 && gpu->num_links < MAX_LINKS; count--) {
        struct end *end = &gpu->links[gpu->num_links++];
        const int is_hidden = strcmp(to, "hidden") == 0;
        end->is_down = strcmp(to, "down") == 0;
        end->kind = strcmp(to, "switch") == 0 ? 2 : is_hidden ? 255 : 0;
        snprintf(end->pci, sizeof(end->pci), "%s",
                 end->kind == 2 ? "00000000:c0:00.0"
                 : is_hidden    ? "fffffff:ff:ff.0"
                                : to);
    }
}

static void read_line(const char *line)
{
    struct gpu gpu = {0};
    struct fail fail = {.gpu = -1};
    char to[24];
    int which, count;
    if (sscanf(line, "gpu %23s %63s %d %d %63[^\n]", gpu.pci, gpu.uuid, &gpu.numa, &gpu.mig,
               gpu.model) == 5)
        gpus[num_gpus++] = gpu;
    else if (sscanf(line, "link %d %d %23s", &which, &count, to) == 3)
        add_links(&gpus[which], count, to);
    else if (sscanf(line, "fail %63s %d %d", fail.function, &fail.code, &fail.gpu) >= 2)
        fails[num_fails++] = fail;
    else
        abort();
}

static int read_machine(void)
{
    char line[256];
    const char *path = getenv("FAKE_NVML");
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    num_gpus = num_fails = 0;
    if (file == NULL)
        return 9; /* no driver */
    while (fgets(line, sizeof(line), file) != NULL)
        read_line(line);
    fclose(file);
    return failure_of("nvmlInit_v2", NULL);
}

int nvmlInit_v2(void)
{
    pthread_mutex_lock(&starting);
    const int code = num_started > 0 ? OK : read_machine();
    num_started += code == OK;
    pthread_mutex_unlock(&starting);
    return code;
}

int nvmlShutdown(void)
{
    pthread_mutex_lock(&starting);
    num_started -= num_started > 0;
    pthread_mutex_unlock(&starting);
    return OK;
}

const char *nvmlErrorString(int code)
{
    static char text[32];
    snprintf(text, sizeof(text), "error %d", code);
    return text;
}

int nvmlDeviceGetCount_v2(unsigned *num)
{
    CHECK(NULL);
    *num = num_gpus;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    if (index >= num_gpus)
        return INVALID_ARGUMENT;
    CHECK(&gpus[index]);
    *handle = &gpus[index];
    return OK;
}

static void fill_pci(const char *text, struct pci_info *pci)
{
    memset(pci, 0, sizeof(*pci));
    if (sscanf(text, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3)
        abort();
    snprintf(pci->id, sizeof(pci->id), "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
}

int nvmlDeviceGetPciInfo_v3(void *handle, struct pci_info *pci)
{
    CHECK(handle);
    fill_pci(((struct gpu *)handle)->pci, pci);
    return OK;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned bytes)
{
    CHECK(handle);
    snprintf(name, bytes, "%s", ((struct gpu *)handle)->model);
    return OK;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned bytes)
{
    CHECK(handle);
    snprintf(uuid, bytes, "%s", ((struct gpu *)handle)->uuid);
    return OK;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending)
{
    CHECK(handle);
    *now = *pending = (unsigned)((struct gpu *)handle)->mig;
    return OK;
}

int nvmlDeviceGetMemoryAffinity(void *handle, unsigned words, unsigned long *nodes, int scope)
{
    const struct gpu *gpu = handle;
    CHECK(gpu);
    if (gpu->numa < 0 || scope != 0)
        return NOT_SUPPORTED;
    memset(nodes, 0, words * sizeof(*nodes));
    nodes[0] = 1UL << gpu->numa;
    return OK;
}

static const struct end *link_of(void *handle, unsigned link)
{
    const struct gpu *gpu = handle;
    return link < (unsigned)gpu->num_links ? &gpu->links[link] : NULL;
}

int nvmlDeviceGetNvLinkState(void *handle, unsigned link, int *is_active)
{
    CHECK(handle);
    if (((struct gpu *)handle)->num_links == 0)
        return NOT_SUPPORTED;
    const struct end *end = link_of(handle, link);
    if (end == NULL)
        return INVALID_ARGUMENT;
    *is_active = !end->is_down;
    return OK;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *handle, unsigned link, struct pci_info *pci)
{
    CHECK(handle);
    const struct end *end = link_of(handle, link);
    if (end == NULL)
        return INVALID_ARGUMENT;
    fill_pci(end->pci, pci);
    return OK;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, unsigned link, int *kind)
{
    CHECK(handle);
    const struct end *end = link_of(handle, link);
    if (end == NULL)
        return INVALID_ARGUMENT;
    *kind = end->kind;
    return OK;
}

int nvmlDeviceGetNvLinkVersion(void *handle, unsigned link, unsigned *version)
{
    CHECK(handle);
    if (link_of(handle, link) == NULL)
        return INVALID_ARGUMENT;
    *version = 5; /* NVLink 3 */
    return OK;
}
