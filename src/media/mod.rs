//! Image layers in, boot set (kernel, initrd, squashfs) out.
