"""Result objects: what a radiologist sees of an analysis, as DICOM data sets built by pure functions.

::

    ResultContext, SlideStudyContext  -->  builders, slide  -->  BuiltObject: bytes, UIDs
    (what was read, what was found)             |
                                             checks: what must hold before anything is stored or sent

One module for each kind of object, which asks ``identity`` for its UIDs, ``codes`` for its coded concepts and
``wording`` for its sentences. Profiles decide which kinds a destination gets. What this package does not
know: rows, jobs, associations.
"""
