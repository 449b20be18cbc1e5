/* nvtx3/nvToolsExt.h -- ranges for profilers, which the emulation records. */
#ifndef TV_TESTS_EMULATION_NVTX_H
#define TV_TESTS_EMULATION_NVTX_H
#ifdef __cplusplus
extern "C" {
#endif
int nvtxRangePushA(const char *name);
int nvtxRangePop(void);
#ifdef __cplusplus
}
#endif
#endif
