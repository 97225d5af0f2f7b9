#include "patch_embed/patch_embed.hpp"

namespace pyseq {

void patch_embed(const PatchEmbed& arguments) { PYSEQ_CALL(patch_embed, arguments) }

void patch_embed_backward(const PatchEmbedBackward& arguments) {
  PYSEQ_CALL(patch_embed_backward, arguments)
}

}  // namespace pyseq
