/* mesh/topology_nvml.c -- NVML, found at run time: GPUs by PCI address, and the other ends of their
 * NVLinks.
 *
 * The types are those of NVML's reference (Device Queries, NvLink Methods); its versioned functions
 * never change. A link's other end is a GPU, known by its PCI address, or a switch, which joins its
 * GPU with all others that have links to one: as many links as the lesser has, which is what
 * `nvidia-smi topo -m` prints. In virtual machines a switch has no PCI address
 * (fffffff:ff:ff.0, NVIDIA/nccl#1182). */
#include "mesh/topology_driver_internal.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINKS = 36, NODE_SET_WORDS = 16, BITS = 8 * sizeof(unsigned long) };
enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_DRIVER = 9 }; /* nvmlReturn_t */
enum { END_GPU = 0, END_CPU = 1, END_SWITCH = 2, END_UNKNOWN = 255 };    /* IntNvLinkDeviceType */
enum { NVLINK_1 = 1, NVLINK_5 = 7, SCOPE_NODE = 0 };                     /* link versions */

struct pci_info { /* nvmlPciInfo_t */
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};

struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int result);
    int (*count)(unsigned *num);
    int (*handle)(unsigned index, void **gpu);
    int (*pci)(void *gpu, struct pci_info *pci);
    int (*name)(void *gpu, char *name, unsigned bytes);
    int (*uuid)(void *gpu, char *uuid, unsigned bytes);
    int (*link_state)(void *gpu, unsigned link, int *is_active);
    int (*link_pci)(void *gpu, unsigned link, struct pci_info *pci);
    /* Newer than the others; NULL where they are not there. */
    int (*link_end)(void *gpu, unsigned link, int *kind);
    int (*link_version)(void *gpu, unsigned link, unsigned *version);
    int (*mig)(void *gpu, unsigned *is_cut, unsigned *is_pending);
    int (*memory)(void *gpu, unsigned words, unsigned long *nodes, int scope);
};

/* The address of a function into a pointer to it, which C has no cast for. */
static int find(const struct nvml *nvml, const char *name, void *function_out)
{
    void *found = dlsym(nvml->library, name);
    memcpy(function_out, &found, sizeof(found));
    return found != NULL;
}

static int find_all(struct nvml *n)
{
    find(n, "nvmlDeviceGetNvLinkRemoteDeviceType", &n->link_end);
    find(n, "nvmlDeviceGetNvLinkVersion", &n->link_version);
    find(n, "nvmlDeviceGetMigMode", &n->mig);
    find(n, "nvmlDeviceGetMemoryAffinity", &n->memory);
    return find(n, "nvmlInit_v2", &n->init) && find(n, "nvmlShutdown", &n->shutdown) &&
           find(n, "nvmlErrorString", &n->error_string) &&
           find(n, "nvmlDeviceGetCount_v2", &n->count) &&
           find(n, "nvmlDeviceGetHandleByIndex_v2", &n->handle) &&
           find(n, "nvmlDeviceGetPciInfo_v3", &n->pci) && find(n, "nvmlDeviceGetName", &n->name) &&
           find(n, "nvmlDeviceGetUUID", &n->uuid) &&
           find(n, "nvmlDeviceGetNvLinkState", &n->link_state) &&
           find(n, "nvmlDeviceGetNvLinkRemotePciInfo_v2", &n->link_pci);
}

static uint64_t address_of(const struct pci_info *pci)
{
    return (uint64_t)pci->domain << 24 | (uint64_t)(pci->bus & 0xff) << 16 |
           (uint64_t)(pci->device & 0xff) << 8;
}

/* ---- GPUs ---- */

static int nearest_numa(const struct nvml *nvml, void *gpu)
{
    unsigned long nodes[NODE_SET_WORDS] = {0};
    if (nvml->memory == NULL || nvml->memory(gpu, NODE_SET_WORDS, nodes, SCOPE_NODE) != OK)
        return -1;
    for (int i = 0; i < NODE_SET_WORDS * BITS; i++) {
        if ((nodes[i / BITS] >> i % BITS & 1) != 0)
            return i;
    }
    return -1;
}

/* 0, and what failed, where the GPU does not answer. */
static int ask_gpu(const struct nvml *nvml, unsigned index, void **handle,
                   struct tv_driver_gpu *gpu, int *result)
{
    struct pci_info pci = {0};
    unsigned is_cut = 0, is_pending;
    *gpu = (struct tv_driver_gpu){0};
    if ((*result = nvml->handle(index, handle)) != OK ||
        (*result = nvml->pci(*handle, &pci)) != OK ||
        (*result = nvml->name(*handle, gpu->model, sizeof(gpu->model))) != OK ||
        (*result = nvml->uuid(*handle, gpu->uuid, sizeof(gpu->uuid))) != OK)
        return 0;
    gpu->address = address_of(&pci);
    gpu->numa = nearest_numa(nvml, *handle);
    gpu->is_cut =
        nvml->mig != NULL && nvml->mig(*handle, &is_cut, &is_pending) == OK && is_cut != 0;
    return 1;
}

struct asked {
    struct tv_driver_gpu gpu;
    void *handle;
};

static int by_address(const void *a, const void *b)
{
    const uint64_t x = ((const struct asked *)a)->gpu.address;
    const uint64_t y = ((const struct asked *)b)->gpu.address;
    return (x > y) - (x < y);
}

static tv_status_t ask_gpus(const struct nvml *nvml, unsigned num, struct asked *asked,
                            struct tv_driver *driver, struct tv_warnings *warnings)
{
    int result, num_asked = 0;
    for (unsigned i = 0; i < num; i++) {
        struct asked *next = &asked[num_asked];
        if (ask_gpu(nvml, i, &next->handle, &next->gpu, &result))
            num_asked++;
        else
            TV_TRY(tv_warn(warnings, "NVML cannot read its GPU %u (%s); it is left out", i,
                           nvml->error_string(result)));
    }
    qsort(asked, (size_t)num_asked, sizeof(*asked), by_address);
    for (int g = 0; g < num_asked; g++)
        driver->gpus[g] = asked[g].gpu;
    driver->num_gpus = num_asked;
    return TV_OK;
}

/* ---- links ---- */

struct links {
    const struct nvml *nvml;
    const struct tv_driver *driver;
    int *to_gpu;    /* [num_gpus, num_gpus] */
    int *to_switch; /* [num_gpus] */
};

/* What a link ends at: a switch where nothing else is known to be there. A GPU that this process
 * may not use is not counted. */
static int ask_link(struct links *l, int gpu, void *handle, unsigned link)
{
    struct pci_info pci = {0};
    int kind = END_UNKNOWN;
    if (l->nvml->link_end != NULL && l->nvml->link_end(handle, link, &kind) != OK)
        kind = END_UNKNOWN;
    const int result = l->nvml->link_pci(handle, link, &pci);
    const int peer = result == OK ? tv_driver_find(l->driver, address_of(&pci)) : -1;
    if (peer >= 0)
        l->to_gpu[gpu * l->driver->num_gpus + peer]++;
    else if (kind == END_SWITCH || (kind == END_UNKNOWN && result == OK))
        l->to_switch[gpu]++;
    else if (kind == END_UNKNOWN)
        return result;
    return OK;
}

static tv_status_t ask_links(struct links *l, int gpu, void *handle, double *gbps_per_link,
                             struct tv_warnings *warnings)
{
    char pci[TV_TOPO_PCI];
    tv_pci_format(l->driver->gpus[gpu].address, pci);
    for (unsigned link = 0; link < MAX_LINKS; link++) {
        int is_active = 0;
        unsigned version = 0;
        int result = l->nvml->link_state(handle, link, &is_active);
        if (result == INVALID_ARGUMENT || result == NOT_SUPPORTED)
            break; /* it has no more */
        if (result == OK && is_active) {
            result = ask_link(l, gpu, handle, link);
            if (l->nvml->link_version != NULL &&
                l->nvml->link_version(handle, link, &version) == OK)
                *gbps_per_link = version == NVLINK_1 ? 20 : version >= NVLINK_5 ? 50 : 25;
        }
        if (result != OK)
            TV_TRY(tv_warn(warnings, "GPU %d (%s): NVML cannot read its link %u (%s)", gpu, pci,
                           link, l->nvml->error_string(result)));
    }
    return TV_OK;
}

static tv_status_t find_links(const struct nvml *nvml, const struct asked *asked,
                              struct tv_driver *driver, struct tv_warnings *warnings)
{
    const int G = driver->num_gpus;
    struct links links = {.nvml = nvml, .driver = driver};
    tv_status_t status = TV_OK;
    links.to_gpu = calloc((size_t)G * (size_t)G + 1, sizeof(int));
    links.to_switch = calloc((size_t)G + 1, sizeof(int));
    if (links.to_gpu == NULL || links.to_switch == NULL)
        status = TV_ERR(TV_NO_MEMORY, "links of %d GPUs", G);
    for (int g = 0; g < G && status == TV_OK; g++)
        status = ask_links(&links, g, asked[g].handle, &driver->gbps_per_link, warnings);
    for (int i = 0; i < G * G && status == TV_OK; i++) {
        const int a = links.to_switch[i / G], b = links.to_switch[i % G];
        links.to_gpu[i] += i / G == i % G ? 0 : a < b ? a : b;
    }
    free(links.to_switch);
    driver->num_links = links.to_gpu; /* freed with the driver, whatever the status */
    return status;
}

/* ---- the library ---- */

static tv_status_t ask(const struct nvml *nvml, struct tv_driver *driver,
                       struct tv_warnings *warnings)
{
    unsigned num = 0;
    const int result = nvml->count(&num);
    if (result != OK)
        return tv_warn(warnings, "NVML cannot count GPUs (%s)", nvml->error_string(result));
    if (num > TV_TOPO_MAX_DEVICES)
        return TV_ERR(TV_INVALID, "NVML: %u GPUs, at most %d", num, TV_TOPO_MAX_DEVICES);
    struct asked *asked = calloc((size_t)num + 1, sizeof(*asked));
    driver->gpus = calloc((size_t)num + 1, sizeof(*driver->gpus));
    tv_status_t status = TV_OK;
    if (asked == NULL || driver->gpus == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%u GPUs", num);
    if (status == TV_OK)
        status = ask_gpus(nvml, num, asked, driver, warnings);
    if (status == TV_OK)
        status = find_links(nvml, asked, driver, warnings);
    free(asked);
    return status;
}

tv_status_t tv_driver_read(struct tv_driver *driver_out, struct tv_warnings *warnings)
{
    static const char name[] = "libnvidia-ml.so.1";
    struct nvml nvml = {.library = dlopen(name, RTLD_NOW | RTLD_LOCAL)};
    struct tv_driver driver = {.gbps_per_link = TV_GBPS_LINK};
    tv_status_t status;
    *driver_out = (struct tv_driver){0};
    if (nvml.library == NULL)
        return tv_warn(warnings, "no driver of NVIDIA is asked: %s", dlerror());
    if (!find_all(&nvml)) {
        status = tv_warn(warnings, "%s is too old: functions of NVML 11 are missing", name);
    } else {
        const int result = nvml.init();
        status = result == OK
                     ? ask(&nvml, &driver, warnings)
                     : tv_warn(warnings, "NVML does not start (%s)%s", nvml.error_string(result),
                               result == NO_DRIVER ? "; is this a node with GPUs?" : "");
        if (result == OK)
            nvml.shutdown();
    }
    dlclose(nvml.library);
    if (status != TV_OK) {
        tv_driver_free(&driver);
        return status;
    }
    *driver_out = driver;
    return TV_OK;
}
