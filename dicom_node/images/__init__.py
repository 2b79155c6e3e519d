"""From stored objects to what a display would show of them: whole images, and slides band by band.

::

    reader, slides  -->  decoder_process  ==>  decoding, tile_decoding   (a child with limits)
                                                 --> codestreams, jpeg_extended, presentation_values
"""
